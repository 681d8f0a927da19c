//! The routes there are, and what each asks of a key. `infra/template.yaml` is what routes; a test holds the two together.
//!
//! A route that is missing here is nobody's: the authorizer denies it.

use crate::key::Scope;

/// What a route asks of whoever takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing: the authorizer is not even asked.
    Open,
    /// A key, whatever it may do.
    AnyKey,
    /// A key with this scope.
    Scope(Scope),
}

const READ: Access = Access::Scope(Scope::Read);
const BUILD: Access = Access::Scope(Scope::Build);
const DELETE: Access = Access::Scope(Scope::Delete);
const ADMIN: Access = Access::Scope(Scope::Admin);

/// Method, path, the function that answers, and what it asks of the key.
pub const ROUTES: [(&str, &str, &str, Access); 17] = [
    ("POST", "/api/v1/images/build", "build-image", BUILD),
    ("POST", "/api/v1/images/templates", "upload-template", BUILD),
    ("GET", "/api/v1/images/builds", "get-build", READ),
    ("GET", "/api/v1/images/builds/{build_id}", "get-build", READ),
    ("GET", "/api/v1/images/builds/{build_id}/log", "get-build", READ),
    ("POST", "/api/v1/images/builds/{build_id}/cancel", "cancel-build", BUILD),
    ("GET", "/api/v1/images", "list-images", READ),
    ("GET", "/api/v1/images/{image_id}", "list-images", READ),
    ("DELETE", "/api/v1/images/{image_id}", "delete-image", DELETE),
    ("POST", "/api/v1/images/keys", "manage-keys", ADMIN),
    ("GET", "/api/v1/images/keys", "manage-keys", ADMIN),
    ("DELETE", "/api/v1/images/keys/{key_id}", "manage-keys", ADMIN),
    ("POST", "/api/v1/images/rebuilds", "rebuild-images", ADMIN),
    ("GET", "/api/v1/images/resources", "list-resources", READ),
    ("GET", "/health", "check-health", Access::Open),
    ("GET", "/ready", "check-health", Access::Open),
    ("$default", "", "check-health", Access::AnyKey),
];

/// What the route with this key (`METHOD /path`, or `$default`) asks; none where there is no such route.
pub fn access(route_key: &str) -> Option<Access> {
    let is_it = |method: &str, path: &str| match route_key.split_once(' ') {
        Some(parts) => parts == (method, path) && !path.is_empty(),
        None => path.is_empty() && route_key == method,
    };
    ROUTES.iter().find(|(method, path, ..)| is_it(method, path)).map(|(.., access)| *access)
}

/// The methods that a path takes; none where there is no such path. A fixed part wins over a `{…}` part.
pub fn methods_of(path: &str) -> Vec<&'static str> {
    let best = ROUTES
        .iter()
        .filter(|(_, pattern, ..)| matches(pattern, path))
        .map(|(_, pattern, ..)| *pattern)
        .min_by_key(|pattern| pattern.matches('{').count());
    ROUTES.iter().filter(|(_, pattern, ..)| Some(*pattern) == best).map(|(method, ..)| *method).collect()
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
        assert_eq!(methods_of("/api/v1/images/keys"), ["POST", "GET"]);
        assert!(methods_of("/api/v2/images").is_empty());
        assert!(methods_of("/api/v1/images/").is_empty());
        assert!(methods_of("").is_empty());
    }

    #[test]
    fn a_route_knows_what_it_asks_and_no_other_asks_for_nothing() {
        assert_eq!(access("DELETE /api/v1/images/{image_id}"), Some(DELETE));
        assert_eq!(access("GET /health"), Some(Access::Open));
        assert_eq!(access("$default"), Some(Access::AnyKey));
        for unknown in ["", " ", "GET", "GET ", "$default ", "PUT /health", "GET /api/v1/images/"] {
            assert_eq!(access(unknown), None, "{unknown:?}");
        }
    }
}
