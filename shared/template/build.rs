//! Makes cargo look at the builtin templates, which the compiler embeds without telling it.

fn main() {
    println!("cargo:rerun-if-changed=../../templates");
}
