//! API Gateway's HTTP events (payload format 2.0) to the domain's requests, and back.

use std::collections::BTreeMap;

use aws_lambda_events::event::apigw::{ApiGatewayV2httpRequest, ApiGatewayV2httpResponse};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ciab_core::api::{ApiError, HttpRequest, HttpResponse};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde::{Deserialize, Serialize};

/// Answers HTTP requests with a handler until the function is shut down.
///
/// # Errors
/// Where the Lambda runtime itself fails.
pub async fn serve_http<Deps, Handler>(deps: Deps, handler: Handler) -> Result<(), Error>
where
    Handler: AsyncFn(&Deps, &HttpRequest) -> Result<HttpResponse, ApiError>,
{
    let (deps, handler) = (&deps, &handler);
    lambda_runtime::run(service_fn(async move |event: LambdaEvent<ApiGatewayV2httpRequest>| {
        let response = match request(event.payload) {
            Ok(request) => match handler(deps, &request).await {
                Ok(response) => response,
                Err(error) => answer(&request, &error),
            },
            Err(error) => error.response(),
        };
        Ok::<_, Error>(reply(response))
    }))
    .await
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
    })
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

/// What API Gateway asks an authorizer: the headers are all that ours looks at.
#[derive(Debug, Deserialize)]
struct Question {
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

/// A "simple response": yes or no.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Verdict {
    is_authorized: bool,
}

/// Answers API Gateway's questions whether the value of an `Authorization` header opens the door.
///
/// # Errors
/// Where the Lambda runtime itself fails.
pub async fn serve_authorizer(is_authorized: impl Fn(Option<&str>) -> bool) -> Result<(), Error> {
    let is_authorized = &is_authorized;
    lambda_runtime::run(service_fn(async move |event: LambdaEvent<Question>| {
        let header = event
            .payload
            .headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("authorization"))
            .map(|(_, value)| value.as_str());
        Ok::<_, Error>(Verdict { is_authorized: is_authorized(header) })
    }))
    .await
}
