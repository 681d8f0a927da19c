//! Runs the function binaries as Lambda does: a process takes one invocation at a time, a further one is started when
//! all are busy, an invocation past the function's time limit is ended with its process, and a process that dies fails
//! the invocation it had.
//!
//! Must never answer for a function: what callers see is the function's own answer, or the error Lambda gives when there
//! is none.

mod instance;
mod runtime_api;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::timeout;

use crate::template::FunctionSpec;
use instance::{Instance, Outcome};

pub(crate) use runtime_api::routes;

/// Lambda's own limit for getting a process ready.
const INIT_LIMIT: Duration = Duration::from_secs(10);

/// More simultaneous invocations of one function wait; the default of an account is 1,000, too many for one machine.
const MOST_INSTANCES: usize = 16;

/// What an invocation gave, in the terms of the Invoke API.
#[derive(Clone, Debug)]
pub(crate) struct Invoked {
    pub(crate) payload: Bytes,
    /// The invocation failed: the payload is an error document (`errorType`, `errorMessage`).
    pub(crate) failed: bool,
}

impl Invoked {
    /// The function's time limit ended the invocation.
    pub(crate) fn timed_out(&self) -> bool {
        let document = || serde_json::from_slice::<serde_json::Value>(&self.payload).ok();
        self.failed && document().is_some_and(|error| error["errorType"] == "Sandbox.Timedout")
    }

    fn error(error_type: &str, message: impl AsRef<str>) -> Self {
        let document = json!({"errorType": error_type, "errorMessage": message.as_ref()});
        Self { payload: Bytes::from(document.to_string()), failed: true }
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("{function} does not start: {reason}; its output is in {log}")]
    Function { function: String, reason: String, log: PathBuf },
}

struct Function {
    spec: FunctionSpec,
    binary: PathBuf,
    log: PathBuf,
    /// Processes that wait for work, the one used last at the end.
    idle: Mutex<Vec<Arc<Instance>>>,
    slots: Semaphore,
}

/// All functions of the stack.
pub(crate) struct LambdaHost {
    functions: HashMap<String, Arc<Function>>,
    instances: Mutex<HashMap<String, Arc<Instance>>>,
    runtime_api: String,
    environment: Vec<(String, String)>,
    region: String,
}

impl LambdaHost {
    /// `runtime_api` is the host and port that [`routes`] is served at; `environment` goes to every function.
    pub(crate) fn new(
        specs: &[FunctionSpec],
        binaries: &Path,
        logs: &Path,
        runtime_api: String,
        region: &str,
        environment: Vec<(String, String)>,
    ) -> Self {
        let function = |spec: &FunctionSpec| Function {
            spec: spec.clone(),
            binary: binaries.join(&spec.folder),
            log: logs.join(format!("{}.log", spec.folder)),
            idle: Mutex::new(Vec::new()),
            slots: Semaphore::new(MOST_INSTANCES),
        };
        Self {
            functions: specs.iter().map(|spec| (spec.name.clone(), Arc::new(function(spec)))).collect(),
            instances: Mutex::new(HashMap::new()),
            runtime_api,
            environment,
            region: region.to_owned(),
        }
    }

    pub(crate) fn knows(&self, name: &str) -> bool {
        self.functions.contains_key(name)
    }

    /// Starts one process of each function and waits until each has asked for work, so that a binary that cannot start
    /// is found before the stack says it is ready.
    pub(crate) async fn warm_up(&self) -> Result<(), StartError> {
        let starts = self.functions.values().map(|function| async move {
            match self.start(function).await {
                Ok(instance) => {
                    function.idle.lock().await.push(instance);
                    Ok(())
                }
                Err(error) => Err(StartError::Function {
                    function: function.spec.folder.clone(),
                    reason: String::from_utf8_lossy(&error.payload).into_owned(),
                    log: function.log.clone(),
                }),
            }
        });
        futures::future::try_join_all(starts).await.map(|_| ())
    }

    /// Invokes a function that [`LambdaHost::knows`] and waits for its answer. A caller that goes away does not end it.
    pub(crate) async fn invoke(self: &Arc<Self>, name: &str, payload: Bytes) -> Invoked {
        let (host, function) = (Arc::clone(self), name.to_owned());
        let invocation = tokio::spawn(async move { host.run(&function, payload).await });
        invocation.await.unwrap_or_else(|error| Invoked::error("Runtime.ExitError", error.to_string()))
    }

    async fn run(&self, name: &str, payload: Bytes) -> Invoked {
        let Some(function) = self.functions.get(name) else {
            return Invoked::error("Runtime.Unknown", format!("there is no function {name}"));
        };
        let Ok(_slot) = function.slots.acquire().await else {
            return Invoked::error("Runtime.ExitError", "the stack is stopping");
        };
        let instance = match self.take(function).await {
            Ok(instance) => instance,
            Err(error) => return error,
        };
        let request_id = uuid::Uuid::new_v4().to_string();
        let outcome =
            timeout(function.spec.timeout, instance.run(&request_id, payload, function.spec.timeout)).await;
        match outcome {
            Ok(Outcome::Answered(invoked)) => {
                function.idle.lock().await.push(instance);
                invoked
            }
            Ok(Outcome::Exited(how)) => {
                self.forget(&instance).await;
                tracing::warn!(function = name, request_id, "the process ended in an invocation: {how}");
                Invoked::error(
                    "Runtime.ExitError",
                    format!("RequestId: {request_id} Error: Runtime exited: {how}"),
                )
            }
            Err(_) => {
                instance.kill();
                self.forget(&instance).await;
                let seconds = function.spec.timeout.as_secs_f64();
                tracing::warn!(function = name, request_id, "timed out after {seconds:.2} seconds");
                let message =
                    format!("RequestId: {request_id} Error: Task timed out after {seconds:.2} seconds");
                Invoked::error("Sandbox.Timedout", message)
            }
        }
    }

    /// Kills every process; invocations under way fail.
    pub(crate) async fn stop(&self) {
        for function in self.functions.values() {
            function.slots.close();
        }
        for instance in self.instances.lock().await.values() {
            instance.kill();
        }
    }

    async fn take(&self, function: &Arc<Function>) -> Result<Arc<Instance>, Invoked> {
        loop {
            let idle = function.idle.lock().await.pop();
            match idle {
                Some(instance) if instance.has_exited() => self.forget(&instance).await,
                Some(instance) => return Ok(instance),
                None => return self.start(function).await,
            }
        }
    }

    async fn start(&self, function: &Arc<Function>) -> Result<Arc<Instance>, Invoked> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        // AWS gives host and port alone; the Rust runtime takes a prefix only with the scheme before it.
        let runtime_api = format!("http://{}/.rt/{id}", self.runtime_api);
        let mut environment = self.environment.clone();
        environment.extend(function.spec.environment.clone());
        let log_group = format!("/aws/lambda/{}", function.spec.name);
        for (key, value) in [
            ("AWS_ACCESS_KEY_ID", function.spec.role.clone()),
            ("AWS_LAMBDA_RUNTIME_API", runtime_api),
            ("AWS_LAMBDA_FUNCTION_NAME", function.spec.name.clone()),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".to_owned()),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", function.spec.memory_mb.to_string()),
            ("AWS_LAMBDA_LOG_GROUP_NAME", log_group),
            ("AWS_LAMBDA_LOG_STREAM_NAME", id.clone()),
            ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".to_owned()),
            ("_HANDLER", "bootstrap".to_owned()),
            ("AWS_REGION", self.region.clone()),
            ("AWS_DEFAULT_REGION", self.region.clone()),
        ] {
            environment.push((key.to_owned(), value));
        }
        let instance = {
            // Held from before its process exists: it may ask for work before we are done here.
            let mut instances = self.instances.lock().await;
            let instance =
                Instance::start(id.clone(), &function.binary, &function.log, environment, self.arn(function))
                    .map_err(|error| {
                        Invoked::error("Runtime.ExitError", format!("the binary cannot be started: {error}"))
                    })?;
            instances.insert(id, Arc::clone(&instance));
            instance
        };
        let failure = match timeout(INIT_LIMIT, instance.ready()).await {
            Ok(Ok(())) => return Ok(instance),
            Ok(Err(failure)) => failure,
            Err(_) => Invoked::error("Sandbox.Timedout", "it did not ask for work within 10 seconds"),
        };
        instance.kill();
        self.forget(&instance).await;
        Err(failure)
    }

    fn arn(&self, function: &Function) -> String {
        format!("arn:aws:lambda:{}:{}:function:{}", self.region, crate::ACCOUNT, function.spec.name)
    }

    async fn forget(&self, instance: &Instance) {
        self.instances.lock().await.remove(instance.id());
    }

    async fn instance(&self, id: &str) -> Option<Arc<Instance>> {
        self.instances.lock().await.get(id).cloned()
    }
}
