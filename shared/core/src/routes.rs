//! The routes there are, for telling a wrong method from a wrong path. `infra/template.yaml` is what routes; a test holds
//! the two together.

/// Method, path, and the function that answers.
pub const ROUTES: [(&str, &str, &str); 11] = [
    ("POST", "/api/v1/images/build", "build-image"),
    ("POST", "/api/v1/images/templates", "upload-template"),
    ("GET", "/api/v1/images/builds/{build_id}", "get-build"),
    ("GET", "/api/v1/images/builds/{build_id}/log", "get-build"),
    ("POST", "/api/v1/images/builds/{build_id}/cancel", "cancel-build"),
    ("GET", "/api/v1/images", "list-images"),
    ("GET", "/api/v1/images/{image_id}", "list-images"),
    ("DELETE", "/api/v1/images/{image_id}", "delete-image"),
    ("GET", "/health", "check-health"),
    ("GET", "/ready", "check-health"),
    ("$default", "", "check-health"),
];

/// The methods that a path takes; none where there is no such path. A fixed part wins over a `{…}` part.
pub fn methods_of(path: &str) -> Vec<&'static str> {
    let best = ROUTES
        .iter()
        .filter(|(_, pattern, _)| matches(pattern, path))
        .map(|(_, pattern, _)| *pattern)
        .min_by_key(|pattern| pattern.matches('{').count());
    ROUTES.iter().filter(|(_, pattern, _)| Some(*pattern) == best).map(|(method, _, _)| *method).collect()
}

fn matches(pattern: &str, path: &str) -> bool {
    if pattern.is_empty() {
        return false;
    }
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return true,
            (Some(part), Some(given)) if part == given || (part.starts_with('{') && !given.is_empty()) => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_knows_its_methods() {
        assert_eq!(methods_of("/api/v1/images"), ["GET"]);
        assert_eq!(methods_of("/api/v1/images/build"), ["POST"]);
        assert_eq!(methods_of("/api/v1/images/ami-1"), ["GET", "DELETE"]);
        assert!(methods_of("/api/v2/images").is_empty());
        assert!(methods_of("/api/v1/images/").is_empty());
        assert!(methods_of("").is_empty());
    }
}
