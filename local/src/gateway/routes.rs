//! Which route of the HTTP API a request takes, by API Gateway's rules: the most specific path wins (a literal before
//! `{parameter}` before `{greedy+}`), a method of its own wins over `ANY`, and `$default` takes the rest, which includes a
//! known path with a method it does not have.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

use crate::template::{FunctionSpec, RouteSpec};

#[derive(Clone, Debug)]
pub(super) struct Route {
    /// `METHOD /path` or `$default`, as requestContext.routeKey has it.
    pub(super) key: String,
    pub(super) function: String,
    pub(super) open: bool,
    pattern: Option<(String, Vec<Segment>)>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Literal(String),
    Parameter(String),
    Greedy(String),
}

impl Segment {
    fn rank(&self) -> u8 {
        match self {
            Self::Literal(_) => 0,
            Self::Parameter(_) => 1,
            Self::Greedy(_) => 2,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct RouteTable(Vec<Route>);

pub(super) struct Matched<'a> {
    pub(super) route: &'a Route,
    pub(super) path_parameters: BTreeMap<String, String>,
}

impl RouteTable {
    pub(super) fn new(functions: &[FunctionSpec]) -> Self {
        let mut routes: Vec<Route> = functions.iter().flat_map(routes_of).collect();
        routes.sort_by_key(|route| match &route.pattern {
            None => (Vec::from([u8::MAX]), true),
            Some((method, segments)) => (segments.iter().map(Segment::rank).collect(), method == "ANY"),
        });
        Self(routes)
    }

    /// `path` is as the client sent it, percent-encoded.
    pub(super) fn find(&self, method: &str, path: &str) -> Option<Matched<'_>> {
        let parts: Vec<String> = path.trim_start_matches('/').split('/').map(decoded).collect();
        self.0.iter().find_map(|route| {
            let path_parameters = match &route.pattern {
                None => BTreeMap::new(),
                Some((own, segments)) if own == "ANY" || own == method => matches(segments, &parts)?,
                Some(_) => return None,
            };
            Some(Matched { route, path_parameters })
        })
    }
}

fn routes_of(function: &FunctionSpec) -> Vec<Route> {
    let route = |spec: &RouteSpec| match spec {
        RouteSpec::Default { open } => {
            Route { key: "$default".to_owned(), function: function.name.clone(), open: *open, pattern: None }
        }
        RouteSpec::Path { method, path, open } => Route {
            key: format!("{method} {path}"),
            function: function.name.clone(),
            open: *open,
            pattern: Some((method.clone(), segments(path))),
        },
    };
    function.routes.iter().map(route).collect()
}

fn segments(path: &str) -> Vec<Segment> {
    let segment = |part: &str| match part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        None => Segment::Literal(part.to_owned()),
        Some(name) => match name.strip_suffix('+') {
            Some(name) => Segment::Greedy(name.to_owned()),
            None => Segment::Parameter(name.to_owned()),
        },
    };
    path.trim_start_matches('/').split('/').map(segment).collect()
}

fn matches(segments: &[Segment], parts: &[String]) -> Option<BTreeMap<String, String>> {
    let mut parameters = BTreeMap::new();
    for (index, segment) in segments.iter().enumerate() {
        match (segment, parts.get(index)) {
            (Segment::Literal(literal), Some(part)) if literal == part => {}
            (Segment::Parameter(name), Some(part)) if !part.is_empty() => {
                parameters.insert(name.clone(), part.clone());
            }
            (Segment::Greedy(name), Some(part)) if !part.is_empty() => {
                parameters.insert(name.clone(), parts[index..].join("/"));
                return Some(parameters);
            }
            _ => return None,
        }
    }
    (segments.len() == parts.len()).then_some(parameters)
}

pub(crate) fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> RouteTable {
        let path = |method: &str, path: &str| RouteSpec::Path {
            method: method.to_owned(),
            path: path.to_owned(),
            open: false,
        };
        let function = |name: &str, routes: Vec<RouteSpec>| FunctionSpec {
            name: name.to_owned(),
            folder: name.to_owned(),
            timeout: std::time::Duration::from_secs(1),
            memory_mb: 128,
            environment: BTreeMap::new(),
            routes,
            role: String::new(),
            every: None,
            cron: None,
            event_sources: Vec::new(),
        };
        RouteTable::new(&[
            function("rest", vec![RouteSpec::Default { open: false }]),
            function("image", vec![path("GET", "/images/{image_id}"), path("ANY", "/images/{image_id}")]),
            function("log", vec![path("GET", "/images/builds/{build_id}/log")]),
            function("builds", vec![path("GET", "/images/builds")]),
            function("files", vec![path("GET", "/files/{path+}")]),
        ])
    }

    fn found(method: &str, path: &str) -> (String, BTreeMap<String, String>) {
        let table = table();
        let matched = table.find(method, path).unwrap();
        (matched.route.key.clone(), matched.path_parameters)
    }

    #[test]
    fn a_literal_wins_over_a_parameter() {
        assert_eq!(found("GET", "/images/builds").0, "GET /images/builds");
        assert_eq!(found("GET", "/images/ami-1").0, "GET /images/{image_id}");
    }

    #[test]
    fn a_method_wins_over_any_and_any_takes_the_others() {
        assert_eq!(found("GET", "/images/ami-1").0, "GET /images/{image_id}");
        assert_eq!(found("PUT", "/images/ami-1").0, "ANY /images/{image_id}");
    }

    #[test]
    fn a_known_path_with_another_method_goes_to_the_default() {
        assert_eq!(found("POST", "/images/builds/1/log").0, "$default");
        assert_eq!(found("GET", "/").0, "$default");
        assert_eq!(found("GET", "/files/").0, "$default");
    }

    #[test]
    fn path_parameters_are_decoded() {
        assert_eq!(found("GET", "/images/builds/a%20b/log").1["build_id"], "a b");
        assert_eq!(found("GET", "/files/a/b").1["path"], "a/b");
    }
}
