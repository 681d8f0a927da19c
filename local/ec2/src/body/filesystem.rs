//! The file system an instance sees: its layers as one, `/proc`, a small `/dev`, and nothing of the machine's own.
//!
//! Runs inside the instance's mount namespace, so that all of it vanishes with the instance; mounts nothing outside.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    unistd::{chdir, pivot_root},
};

use super::{
    BodySpec,
    launcher::{InitError, Step},
};
use crate::InstanceProfile;

const NONE: Option<&str> = None;

/// Devices that programs expect and that reach nothing of the machine.
const DEVICES: [&str; 6] = ["full", "null", "random", "tty", "urandom", "zero"];

/// Kernel settings of the whole machine, which an instance may read only.
const READ_ONLY: [&str; 4] = ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus"];

/// Makes the file system and makes it this process's root.
pub(super) fn enter(spec: &BodySpec) -> Result<(), InitError> {
    // Mounts of ours must not show outside, whatever the machine's own are set to.
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).step("making mounts private")?;
    let root = spec.mount_point.as_path();
    mount_layers(spec)?;
    mount_devices(root)?;
    mount_proc(root)?;
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount_new("tmpfs", root, "run", quiet, Some("mode=755"))?;
    show_programs(spec)?;
    copy_resolver(root)?;

    chdir(root).step("entering the new root")?;
    // Stacks the old root upon the new one, from where it can be let go: no directory for it is needed.
    pivot_root(".", ".").step("changing the root")?;
    umount2(".", MntFlags::MNT_DETACH).step("letting go of the old root")?;
    chdir("/").step("entering the root")
}

fn mount_layers(spec: &BodySpec) -> Result<(), InitError> {
    let lower: Vec<String> = spec.lower.iter().map(|layer| escape(layer)).collect();
    // `volatile`: no write ever waits for the disk, as nothing here outlives the machine's boot. `redirect_dir`: a
    // directory of a lower layer can be renamed, as on any disk; package managers do that.
    let options = format!(
        "lowerdir={},upperdir={},workdir={},volatile,redirect_dir=on,index=off,metacopy=off",
        lower.join(":"),
        escape(&spec.upper),
        escape(&spec.work),
    );
    mount(Some("overlay"), &spec.mount_point, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .step("mounting the layers with overlayfs")
}

/// Overlayfs splits its options at commas and colons.
fn escape(path: &Path) -> String {
    let text = path.to_string_lossy();
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '\\' | ':' | ',') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

fn mount_new(
    kind: &str,
    root: &Path,
    at: &str,
    flags: MsFlags,
    options: Option<&str>,
) -> Result<(), InitError> {
    let at = root.join(at);
    fs::create_dir_all(&at).step("making a mount point")?;
    mount(Some(kind), &at, Some(kind), flags, options).step("mounting a file system")
}

fn mount_devices(root: &Path) -> Result<(), InitError> {
    mount_new("tmpfs", root, "dev", MsFlags::MS_NOSUID, Some("mode=755,size=1m"))?;
    let devices = root.join("dev");
    for name in DEVICES {
        let node = devices.join(name);
        fs::write(&node, "").step("making a device")?;
        mount(Some(&Path::new("/dev").join(name)), &node, NONE, MsFlags::MS_BIND, NONE)
            .step("giving a device")?;
    }
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount_new("devpts", root, "dev/pts", quiet, Some("newinstance,ptmxmode=0666,mode=620,gid=5"))?;
    mount_new("tmpfs", root, "dev/shm", MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=1777"))?;
    for (target, name) in [
        ("pts/ptmx", "ptmx"),
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
    ] {
        symlink(target, devices.join(name)).step("linking a device")?;
    }
    fs::set_permissions(&devices, fs::Permissions::from_mode(0o755)).step("opening /dev")
}

fn mount_proc(root: &Path) -> Result<(), InitError> {
    mount_new("proc", root, "proc", MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV, None)?;
    for path in READ_ONLY {
        let at = root.join(path.trim_start_matches('/'));
        if !at.exists() {
            continue;
        }
        mount(Some(&at), &at, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
            .step("guarding a kernel setting")?;
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(NONE, &at, NONE, flags, NONE).step("guarding a kernel setting")?;
    }
    Ok(())
}

fn show_programs(spec: &BodySpec) -> Result<(), InitError> {
    for program in &spec.programs {
        let place = InstanceProfile::place_of(program);
        let at = spec.mount_point.join(place.strip_prefix("/").unwrap_or(&place));
        if let Some(folder) = at.parent() {
            fs::create_dir_all(folder).step("making a folder for programs of the machine")?;
        }
        fs::write(&at, "").step("making a mount point")?;
        mount(Some(program), &at, NONE, MsFlags::MS_BIND, NONE).step("showing a program of the machine")?;
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID;
        mount(NONE, &at, NONE, flags, NONE).step("guarding a program of the machine")?;
    }
    Ok(())
}

/// Names are looked up as the machine does it.
fn copy_resolver(root: &Path) -> Result<(), InitError> {
    let Ok(resolver) = fs::read("/etc/resolv.conf") else { return Ok(()) };
    let inside = root.join("etc/resolv.conf");
    // Often a link to where a resolver service of a bigger system would have written.
    if inside.is_symlink() {
        fs::remove_file(&inside).step("replacing /etc/resolv.conf")?;
    }
    fs::write(inside, resolver).step("writing /etc/resolv.conf")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_cannot_break_out_of_the_mount_options() {
        assert_eq!(escape(Path::new("/a:b,c\\d")), "/a\\:b\\,c\\\\d");
    }
}
