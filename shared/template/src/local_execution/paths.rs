//! Whether a path in a template stays inside of the template's own folder.

/// What is wrong with a path, if anything is.
pub(super) fn judge(path: &str) -> Option<&'static str> {
    let Some(rendered) = rendered(path) else { return Some("its `{{…}}` are computed") };
    let has_drive = matches!(rendered.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic());
    if rendered.starts_with(['/', '~']) || has_drive {
        Some("it is absolute, and only files of the template may be named")
    } else if rendered.split(['/', '\\']).any(|part| part == "..") {
        Some("it has `..` in it, and only files of the template may be named")
    } else if rendered.contains(['\\', '$'])
        || rendered.contains("://")
        || rendered.starts_with(char::is_whitespace)
        || rendered.contains(char::is_control)
    {
        Some("it is not a plain path to a file of the template")
    } else {
        None
    }
}

/// The path with those `{{…}}` replaced whose result is known to stay inside: the template's folder at the very beginning,
/// and what is only letters, digits and hyphens.
fn rendered(path: &str) -> Option<String> {
    let mut text = String::new();
    let mut rest = path;
    while let Some((before, action)) = rest.split_once("{{") {
        let (action, after) = action.split_once("}}")?;
        text.push_str(before);
        match action.trim() {
            "template_dir" | "pwd" if text.is_empty() => text.push('.'),
            "timestamp" | "uuid" | "isotime" | "build_type" | ".ChecksumType" | ".BuilderType" => {
                text.push('x')
            }
            _ => return None,
        }
        rest = after;
    }
    text.push_str(rest);
    Some(text)
}

/// A path fit for a message.
pub(super) fn shown(path: &str) -> String {
    crate::bundle::shown(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_templates_own_files_pass() {
        for path in [
            "",
            "a",
            "./a/b.sh",
            "a/...",
            "..a/b..",
            "{{template_dir}}/a.sh",
            "{{ template_dir }}/a.sh",
            "{{pwd}}",
            "out-{{timestamp}}.json",
            "{{ .ChecksumType }}.txt",
        ] {
            assert_eq!(judge(path), None, "{path}");
        }
    }

    #[test]
    fn every_other_path_is_found() {
        for path in [
            "/etc/shadow",
            "~/.ssh/id_rsa",
            "~root/x",
            "../x",
            "a/../../x",
            "a\\..\\x",
            "a\\b",
            "C:/x",
            "c:x",
            "$HOME/x",
            "${HOME}/x",
            "file:///etc/shadow",
            " /etc/shadow",
            "a\n",
            "{{template_dir}}/../x",
            "a/{{template_dir}}/x",
            "{{user `path`}}",
            "{{ .BuildName }}/x",
            "{{env `HOME`}}/x",
            "{{",
        ] {
            assert!(judge(path).is_some(), "{path}");
        }
    }
}
