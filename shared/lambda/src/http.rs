//! API Gateway's HTTP events (payload format 2.0) to the domain's requests, and back.

use std::collections::{BTreeMap, HashMap};

use aws_lambda_events::event::apigw::{ApiGatewayV2httpRequest, ApiGatewayV2httpResponse};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ciab_core::api::{ApiError, HttpRequest, HttpResponse};
use ciab_core::authorize_request::Question;
use ciab_core::ids::RequestId;
use ciab_core::key::Caller;
use ciab_core::routes::{self, Access};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use lambda_runtime::{Error, LambdaEvent, Runtime, service_fn};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::{Instrument as _, Span};

use crate::invocation;

/// Answers HTTP requests with a handler until the function is shut down.
///
/// # Errors
/// Where the Lambda runtime itself fails.
pub async fn serve_http<Deps, Handler>(deps: Deps, handler: Handler) -> Result<(), Error>
where
    Handler: AsyncFn(&Deps, &HttpRequest) -> Result<HttpResponse, ApiError>,
{
    let (deps, handler) = (&deps, &handler);
    Runtime::new(service_fn(async move |event: LambdaEvent<ApiGatewayV2httpRequest>| {
        let span = invocation::span(&event.context);
        Ok::<_, Error>(answered(deps, handler, event.payload).instrument(span).await)
    }))
    .run()
    .await
}

/// As [`serve_http`], for a function that is also given events of another kind, by a schedule for one: those go to `task`,
/// whose failure fails the invocation, so that whoever sent the event sends it again. The task is told the invocation's id as that of the
/// request, which stays the same where Lambda tries it again.
///
/// # Errors
/// Where the Lambda runtime itself fails.
pub async fn serve_http_and_events<Deps, Handler, Event, Output, Failure, Task>(
    deps: Deps,
    handler: Handler,
    task: Task,
) -> Result<(), Error>
where
    Handler: AsyncFn(&Deps, &HttpRequest) -> Result<HttpResponse, ApiError>,
    Event: DeserializeOwned,
    Output: Serialize,
    Failure: std::error::Error + 'static,
    Task: AsyncFn(&Deps, Event, Option<RequestId>) -> Result<Output, Failure>,
{
    let (deps, handler, task) = (&deps, &handler, &task);
    Runtime::new(service_fn(async move |event: LambdaEvent<Value>| {
        let LambdaEvent { payload, context } = event;
        let work = async {
            // The gateway wraps whatever callers send, so that no request can pass for another kind of event.
            if payload.get("requestContext").is_some() {
                let event = serde_json::from_value(payload)?;
                return Ok::<_, Error>(serde_json::to_value(answered(deps, handler, event).await)?);
            }
            let request_id = serving(Some(&context.request_id));
            match task(deps, serde_json::from_value(payload)?, request_id).await {
                Ok(output) => Ok(serde_json::to_value(output)?),
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "the event's work was not done"
                    );
                    // The message alone: what lies under it may hold internals, and was logged.
                    Err(error.to_string().into())
                }
            }
        };
        work.instrument(invocation::span(&context)).await
    }))
    .run()
    .await
}

/// Has the lines of this invocation name the request that it serves; the request's id.
fn serving(request_id: Option<&str>) -> Option<RequestId> {
    let request_id: RequestId = request_id?.parse().ok()?;
    Span::current().record("request_id", tracing::field::display(&request_id));
    Some(request_id)
}

async fn answered<Deps, Handler>(
    deps: &Deps,
    handler: &Handler,
    event: ApiGatewayV2httpRequest,
) -> ApiGatewayV2httpResponse
where
    Handler: AsyncFn(&Deps, &HttpRequest) -> Result<HttpResponse, ApiError>,
{
    let response = match request(event) {
        Ok(request) => match handler(deps, &request).await {
            Ok(response) => response,
            Err(error) => answer(&request, &error),
        },
        Err(error) => error.response(),
    };
    reply(response)
}

fn answer(request: &HttpRequest, error: &ApiError) -> HttpResponse {
    let (method, path, code) = (&request.method, &request.path, error.code());
    let cause = error as &dyn std::error::Error;
    if error.status() >= 500 {
        tracing::error!(method, path, code, error = cause, "the request failed");
    } else {
        tracing::info!(method, path, code, error = cause, "the request was refused");
    }
    error.response()
}

fn request(event: ApiGatewayV2httpRequest) -> Result<HttpRequest, ApiError> {
    let request_id = serving(event.request_context.request_id.as_deref());
    let told = event.request_context.authorizer.as_ref().map(|authorizer| &authorizer.fields);
    let caller = caller(event.route_key.as_deref().unwrap_or_default(), told)?;
    let body = event.body.unwrap_or_default();
    let body = if event.is_base64_encoded {
        STANDARD.decode(body).map_err(|error| ApiError::Internal(Box::new(error)))?
    } else {
        body.into_bytes()
    };
    let headers = event
        .headers
        .iter()
        .filter_map(|(name, value)| {
            Some((name.as_str().to_ascii_lowercase(), value.to_str().ok()?.to_owned()))
        })
        .collect();
    Ok(HttpRequest {
        method: event.request_context.http.method.to_string(),
        path: event.raw_path.unwrap_or_default(),
        path_parameters: event.path_parameters.into_iter().collect(),
        query: event
            .query_string_parameters
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        headers,
        body,
        caller,
        request_id,
    })
}

/// Who asks, as the authorizer told. The gateway lets nothing through that the authorizer did not allow for this route; should it
/// ever be set up otherwise, the request stays out here.
fn caller(route_key: &str, told: Option<&HashMap<String, Value>>) -> Result<Option<Caller>, ApiError> {
    let access = routes::access(route_key);
    let told = told.filter(|told| !told.is_empty());
    let (access, told) = match (access, told) {
        (Some(Access::Open), None) => return Ok(None),
        (Some(access), Some(told)) => (access, told),
        _ => return Err(ApiError::Internal(format!("no authorizer allowed the route `{route_key}`").into())),
    };
    let caller = Caller::from_context(|name| told.get(name).and_then(Value::as_str))
        .map_err(|error| ApiError::Internal(Box::new(error)))?;
    match access {
        Access::Scope(scope) if !caller.has(scope) => {
            Err(ApiError::Forbidden(format!("the key lacks the scope {scope}")))
        }
        Access::Open | Access::AnyKey | Access::Scope(_) => Ok(Some(caller)),
    }
}

fn reply(response: HttpResponse) -> ApiGatewayV2httpResponse {
    let mut reply = ApiGatewayV2httpResponse::default();
    reply.status_code = i64::from(response.status);
    reply.headers = header_map(&response.headers);
    if let Some(body) = response.body {
        reply.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        reply.body = Some(body.to_string().into());
    }
    reply
}

fn header_map(headers: &BTreeMap<String, String>) -> HeaderMap {
    headers
        .iter()
        .filter_map(|(name, value)| {
            Some((HeaderName::try_from(name.as_str()).ok()?, HeaderValue::try_from(value.as_str()).ok()?))
        })
        .collect()
}

/// What API Gateway asks an authorizer, as far as ours looks at it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthorizerEvent {
    #[serde(default)]
    route_key: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    request_context: AuthorizerContext,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthorizerContext {
    request_id: Option<String>,
}

impl From<AuthorizerEvent> for Question {
    fn from(event: AuthorizerEvent) -> Self {
        let mut headers = event.headers.into_iter();
        let header = headers.find(|(name, _)| name.eq_ignore_ascii_case("authorization"));
        Self { route_key: event.route_key, authorization: header.map(|(_, value)| value) }
    }
}

/// A "simple response": yes or no, and to the functions, who it is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Verdict {
    is_authorized: bool,
    context: BTreeMap<&'static str, String>,
}

impl From<Option<Caller>> for Verdict {
    fn from(caller: Option<Caller>) -> Self {
        Self {
            is_authorized: caller.is_some(),
            context: caller.iter().flat_map(Caller::to_context).collect(),
        }
    }
}

/// Answers API Gateway's questions whether a request may come in. One that cannot be answered fails the invocation: API Gateway
/// answers 500 then, lets nobody in, and remembers nothing.
///
/// # Errors
/// Where the Lambda runtime itself fails.
pub async fn serve_authorizer<Deps, Handler, Failure>(deps: Deps, handler: Handler) -> Result<(), Error>
where
    Handler: AsyncFn(&Deps, &Question) -> Result<Option<Caller>, Failure>,
    Failure: std::error::Error + Send + Sync + 'static,
{
    let (deps, handler) = (&deps, &handler);
    Runtime::new(service_fn(async move |event: LambdaEvent<AuthorizerEvent>| {
        let LambdaEvent { payload, context } = event;
        let work = async {
            serving(payload.request_context.request_id.as_deref());
            match handler(deps, &payload.into()).await {
                Ok(caller) => Ok(Verdict::from(caller)),
                Err(error) => {
                    let cause = &error as &dyn std::error::Error;
                    tracing::error!(error = cause, "nobody knows whether the key is good");
                    // The cause may name what is ours: it is for the log alone.
                    Err(Error::from("what is known of the key cannot be read"))
                }
            }
        };
        work.instrument(invocation::span(&context)).await
    }))
    .run()
    .await
}

#[cfg(test)]
mod tests {
    use ciab_core::key::Scope;
    use serde_json::json;

    use super::*;

    fn told(context: &Value) -> HashMap<String, Value> {
        serde_json::from_value(context.clone()).unwrap()
    }

    #[test]
    fn a_question_holds_the_route_and_the_header_whatever_its_case() {
        let event = json!({
            "version": "2.0", "type": "REQUEST", "routeArn": "arn:…", "identitySource": ["Bearer k", "GET /x"],
            "routeKey": "GET /x", "rawPath": "/x", "headers": {"Authorization": "Bearer k", "accept": "*/*"},
            "requestContext": {"requestId": "r", "stage": "$default"},
        });
        let event: AuthorizerEvent = serde_json::from_value(event).unwrap();
        assert_eq!(event.request_context.request_id.as_deref(), Some("r"));
        let question: Question = event.into();
        assert_eq!(
            (question.route_key.as_str(), question.authorization.as_deref()),
            ("GET /x", Some("Bearer k"))
        );
        let nothing: Question = serde_json::from_value::<AuthorizerEvent>(json!({})).unwrap().into();
        assert_eq!((nothing.route_key.as_str(), nothing.authorization), ("", None));
    }

    #[test]
    fn a_verdict_tells_who_it_is_and_a_denial_tells_nothing() {
        let verdict = serde_json::to_value(Verdict::from(Some(Caller::admin()))).unwrap();
        assert_eq!(verdict, json!({"isAuthorized": true, "context": {"key_id": "admin", "scopes": "admin"}}));
        let verdict = serde_json::to_value(Verdict::from(None)).unwrap();
        assert_eq!(verdict, json!({"isAuthorized": false, "context": {}}));
    }

    #[test]
    fn a_request_that_no_authorizer_allowed_stays_out_of_all_but_open_routes() {
        for (method, path, _, access) in routes::ROUTES {
            let route = if path.is_empty() { method.to_owned() } else { format!("{method} {path}") };
            let nobody = caller(&route, None);
            assert_eq!(nobody.is_ok(), access == Access::Open, "{route}");
            assert_eq!(caller(&route, Some(&HashMap::new())).is_ok(), access == Access::Open, "{route}");
            assert!(caller(&route, Some(&told(&json!({"key_id": "k"})))).is_err(), "{route}");
        }
        assert_eq!(caller("GET /health", None).unwrap(), None);
        let admin = told(&json!({"key_id": "admin", "scopes": "admin"}));
        assert!(caller("GET /nothing", Some(&admin)).is_err());
        assert!(caller("", Some(&admin)).is_err());
    }

    #[test]
    fn a_key_without_the_routes_scope_is_forbidden_even_here() {
        let reader = told(&json!({"key_id": "k", "scopes": "read", "regions": "eu-west-1"}));
        let read = caller("GET /api/v1/images", Some(&reader)).unwrap().unwrap();
        assert!(read.has(Scope::Read) && read.limits.regions.is_some());
        let refused = caller("POST /api/v1/images/build", Some(&reader)).unwrap_err();
        assert_eq!((refused.status(), refused.code()), (403, "forbidden"));
        assert!(refused.to_string().contains("scope build"), "{refused}");
    }

    #[test]
    fn an_event_of_the_gateway_is_read_whole() {
        let event = json!({
            "version": "2.0", "routeKey": "GET /api/v1/images/{image_id}", "rawPath": "/api/v1/images/ami-1",
            "rawQueryString": "a=1", "headers": {"x-thing": "one"}, "queryStringParameters": {"a": "1"},
            "pathParameters": {"image_id": "ami-1"}, "isBase64Encoded": false, "body": "{}",
            "requestContext": {
                "accountId": "123456789012", "apiId": "a", "stage": "$default", "requestId": "r",
                "routeKey": "GET /api/v1/images/{image_id}", "time": "25/Mar/2026:14:30:00 +0000",
                "timeEpoch": 1_774_449_000_000_i64, "domainName": "d", "domainPrefix": "d",
                "http": {"method": "GET", "path": "/api/v1/images/ami-1", "protocol": "HTTP/1.1",
                    "sourceIp": "127.0.0.1", "userAgent": "test"},
                "authorizer": {"lambda": {"key_id": "k", "scopes": "build,read", "providers": "codex"}},
            },
        });
        let request = request(serde_json::from_value(event).unwrap()).unwrap();
        assert_eq!((request.method.as_str(), request.path_parameter("image_id")), ("GET", "ami-1"));
        assert_eq!(request.requested_by().as_deref(), Some("k"));
        assert_eq!(request.request_id, "r".parse().ok());
        assert_eq!(request.limits().unwrap().to_string(), "providers codex");
    }
}
