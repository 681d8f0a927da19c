//! Counts what an adapter asks: an HTTP client that notes the `Action` of every request of the query protocol.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use ciab_aws::SdkConfig;

/// How often each action was asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Calls(Arc<Mutex<BTreeMap<String, usize>>>);

impl Calls {
    /// The same configuration, with what is sent noted here.
    pub(crate) fn of(&self, config: &SdkConfig) -> SdkConfig {
        let inner = config.http_client().expect("the configuration has an HTTP client");
        let counting = Counting { inner, calls: self.clone() };
        config.clone().into_builder().http_client(SharedHttpClient::new(counting)).build()
    }

    pub(crate) fn take(&self) -> BTreeMap<String, usize> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

#[derive(Debug, Clone)]
struct Counting<Inner> {
    inner: Inner,
    calls: Calls,
}

impl HttpClient for Counting<SharedHttpClient> {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let inner = self.inner.http_connector(settings, components);
        SharedHttpConnector::new(Counting { inner, calls: self.calls.clone() })
    }
}

impl HttpConnector for Counting<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let form = String::from_utf8_lossy(request.body().bytes().unwrap_or_default()).into_owned();
        let action = form.split('&').find_map(|field| field.strip_prefix("Action=")).unwrap_or("none");
        *self.calls.0.lock().unwrap().entry(action.to_owned()).or_default() += 1;
        self.inner.call(request)
    }
}
