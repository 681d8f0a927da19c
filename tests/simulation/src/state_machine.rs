//! The state machine: `infra/build-image.asl.json` with its own retries, catches and times, on functions that fail, run
//! twice, run late, or run on after they were given up.

use std::future::Future;
use std::sync::{Arc, OnceLock};

use ciab_core::clean_up::Caught;
use ciab_core::ids::BuildId;
use ciab_core::ports::PortError;
use ciab_core::step::StepError;
use ciab_core::{clean_up, finish_build, prepare_build, start_runner};
use serde_json::{Value, json};

use crate::parts;
use crate::services::Token;
use crate::world::{Answer, MINUTE, Millis, Process, SECOND, SignalId, World, short};

/// The limits that `infra/template.yaml` gives the functions.
const PREPARE_BUILD: Millis = 120 * SECOND;
const START_RUNNER: Millis = 60 * SECOND;
const FINISH_BUILD: Millis = 120 * SECOND;
const CLEAN_UP: Millis = 120 * SECOND;

fn machine() -> &'static Value {
    static MACHINE: OnceLock<Value> = OnceLock::new();
    MACHINE.get_or_init(|| {
        let document = include_str!("../../../infra/build-image.asl.json");
        match serde_json::from_str(document) {
            Ok(machine) => machine,
            Err(error) => panic!("infra/build-image.asl.json: {error}"),
        }
    })
}

fn state_named(name: &str) -> &'static Value {
    let state = &machine()["States"][name];
    assert!(state.is_object(), "infra/build-image.asl.json has no state {name}");
    state
}

/// Every state but the last catches everything.
fn assert_caught(name: &str) {
    let caught = &state_named(name)["Catch"][0];
    assert_eq!((&caught["ErrorEquals"][0], &caught["Next"]), (&json!("States.ALL"), &json!("CleanUp")));
}

/// How often each retrier of a state has been used.
struct Retries {
    state: &'static Value,
    used: Vec<u64>,
}

impl Retries {
    fn of(name: &str) -> Self {
        let state = state_named(name);
        Self { state, used: vec![0; state["Retry"].as_array().map_or(0, Vec::len)] }
    }

    /// How long to wait before the next try after this error; none where there is none.
    fn next(&mut self, error: &str, world: &World) -> Option<Millis> {
        let retriers = self.state["Retry"].as_array()?;
        let matches = |retrier: &Value| {
            retrier["ErrorEquals"].as_array().is_some_and(|names| names.iter().any(|name| name == error))
        };
        let at = retriers.iter().position(matches)?;
        let retrier = &retriers[at];
        if self.used[at] >= retrier["MaxAttempts"].as_u64().unwrap_or(3) {
            return None;
        }
        let turn = i32::try_from(self.used[at]).unwrap_or(i32::MAX);
        self.used[at] += 1;
        let most = retrier["MaxDelaySeconds"].as_f64().unwrap_or(f64::MAX);
        let seconds = retrier["IntervalSeconds"].as_f64().unwrap_or(1.0)
            * retrier["BackoffRate"].as_f64().unwrap_or(2.0).powi(turn);
        #[expect(clippy::cast_possible_truncation, reason = "seconds within an hour")]
        let millis = (seconds.min(most).min(3600.0) * 1000.0) as Millis;
        let jitter = retrier["JitterStrategy"] == "FULL";
        Some(if jitter { world.state(|state| state.between(0, millis)) } else { millis })
    }
}

/// Runs the execution of a build.
pub(crate) async fn run(world: World, id: BuildId) {
    assert_eq!(machine()["StartAt"], "PrepareBuild");
    for name in ["PrepareBuild", "RunPacker", "FinishBuild"] {
        assert_caught(name);
    }
    if let Err((error, cause)) = goes_well(&world, id).await {
        world.state(|state| state.say(|| format!("caught {error}: {cause}")));
        let caught = Arc::new((error, cause));
        let cleaned = task(&world, "CleanUp", CLEAN_UP, move |process| {
            let (error, cause) = (*caught).clone();
            clean(process, id, Caught { error, cause })
        });
        drop(cleaned.await);
    }
    world.state(|state| state.end_execution(id));
}

async fn goes_well(world: &World, id: BuildId) -> Result<(), (String, String)> {
    let prepared = task(world, "PrepareBuild", PREPARE_BUILD, move |process| prepare(process, id)).await?;
    let made = run_packer(world, id, &prepared).await?;
    let artifacts = made.get("artifacts").cloned().unwrap_or(Value::Null);
    task(world, "FinishBuild", FINISH_BUILD, move |process| finish(process, id, artifacts.clone())).await?;
    Ok(())
}

/// A state that calls a function, tried again as the state says.
async fn task<F>(
    world: &World,
    name: &'static str,
    limit: Millis,
    body: impl Fn(Arc<Process>) -> F + Clone + 'static,
) -> Answer
where
    F: Future<Output = Answer> + 'static,
{
    let mut retries = Retries::of(name);
    let patience = state_named(name)["TimeoutSeconds"].as_i64().unwrap_or(0) * SECOND;
    loop {
        let answer = match invoke(world, name, limit, body.clone()).await {
            Invoked::Failed(error) => Err(error),
            Invoked::Runs(invocation) => answer(world, invocation, patience).await,
        };
        match answer {
            Ok(output) => return Ok(output),
            Err((error, cause)) => match retries.next(&error, world) {
                Some(pause) => {
                    world.sleep(pause).await;
                }
                None => return Err((error, cause)),
            },
        }
    }
}

enum Invoked {
    /// Nobody knows whether it ran.
    Failed((String, String)),
    Runs(SignalId),
}

fn lambda_error(name: &str) -> (String, String) {
    (format!("Lambda.{name}"), "the function could not be invoked".to_owned())
}

/// Invokes a function: it may not run, run twice, run once more much later, or run while the caller is told that it did not.
async fn invoke<F>(
    world: &World,
    name: &'static str,
    limit: Millis,
    body: impl Fn(Arc<Process>) -> F + Clone + 'static,
) -> Invoked
where
    F: Future<Output = Answer> + 'static,
{
    let (fails, lost, again) = world.state(|state| {
        let (fails, twice) = (state.weather.invocation_fails, state.weather.duplicated);
        let calm = state.calm;
        let again = if !calm && state.chance(twice) {
            Some(if state.random.bool() {
                state.between(0, 5 * SECOND)
            } else {
                state.between(0, 10 * MINUTE)
            })
        } else {
            None
        };
        (!calm && state.chance(fails), state.random.bool(), again)
    });
    if let Some(after) = again {
        let (later, body) = (world.clone(), body.clone());
        world.spawn("a repeated event", None, async move {
            later.sleep(after).await;
            if !later.state(|state| state.calm) {
                later.invoke(name, limit, body);
            }
        });
    }
    if fails {
        if lost {
            world.invoke(name, limit, body);
            let after = world.state(|state| state.between(0, 20 * SECOND));
            world.sleep(after).await;
            return Invoked::Failed(lambda_error("SdkClientException"));
        }
        let refused = if world.state(|state| state.random.bool()) {
            "TooManyRequestsException"
        } else {
            "ServiceException"
        };
        return Invoked::Failed(lambda_error(refused));
    }
    Invoked::Runs(world.invoke(name, limit, body))
}

async fn answer(world: &World, invocation: SignalId, patience: Millis) -> Answer {
    world.wait(&[invocation], Some(patience)).await;
    world
        .state(|state| state.answer_of(invocation))
        .unwrap_or_else(|| Err(("States.Timeout".to_owned(), String::new())))
}

/// The state that waits for the runner's report.
async fn run_packer(world: &World, id: BuildId, prepared: &Value) -> Answer {
    let name = "RunPacker";
    let mut retries = Retries::of(name);
    let seconds = |field: &str| prepared[field].as_i64().unwrap_or(1) * SECOND;
    let (patience, heartbeat) = (seconds("run_packer_timeout_secs"), seconds("heartbeat_secs"));
    loop {
        let (token, signal) = world.state(|state| {
            let (signal, number) = (state.signal(), state.next());
            let token = format!("token-{number}-of-{id}");
            let heard = state.now;
            state
                .tokens
                .all
                .insert(token.clone(), Token { build: id, open: true, heard, result: None, signal });
            (token, signal)
        });
        let until = world.state(|state| state.now) + patience;
        let task_token = token.clone();
        let body = move |process| launch(process, id, task_token.clone());
        let answer = match invoke(world, "RunPacker", START_RUNNER, body).await {
            Invoked::Failed(error) => Err(error),
            Invoked::Runs(invocation) => {
                report(world, &token, &[signal, invocation], invocation, until, heartbeat).await
            }
        };
        world.state(|state| {
            if let Some(token) = state.tokens.all.get_mut(&token) {
                token.open = false;
            }
        });
        match answer {
            Ok(output) => return Ok(output),
            Err((error, cause)) => match retries.next(&error, world) {
                Some(pause) => {
                    world.sleep(pause).await;
                }
                None => return Err((error, cause)),
            },
        }
    }
}

/// Waits for the report, for the function to fail, for a heartbeat to be missed, or for the time to be over.
async fn report(
    world: &World,
    token: &str,
    signals: &[SignalId; 2],
    invocation: SignalId,
    until: Millis,
    heartbeat: Millis,
) -> Answer {
    let mut waits_for: &[SignalId] = signals;
    loop {
        let (result, heard, now, answer) = world.state(|state| {
            let known = &state.tokens.all[token];
            (known.result.clone(), known.heard, state.now, state.answer_of(invocation))
        });
        if let Some(result) = result {
            return result;
        }
        match answer {
            Some(Err(error)) => return Err(error),
            Some(Ok(_)) => waits_for = &signals[..1],
            None => {}
        }
        if now >= until {
            return Err(("States.Timeout".to_owned(), String::new()));
        }
        if now >= heard + heartbeat {
            let either = world.state(|state| state.random.bool());
            let name = if either { "States.HeartbeatTimeout" } else { "States.Timeout" };
            return Err((name.to_owned(), String::new()));
        }
        world.wait(waits_for, Some((until - now).min(heard + heartbeat - now))).await;
    }
}

/// A step's result as Lambda answers it.
fn answered<T: serde::Serialize>(result: Result<T, StepError>) -> Answer {
    match result {
        Ok(output) => {
            serde_json::to_value(&output).map_err(|error| ("Lambda.Unknown".to_owned(), error.to_string()))
        }
        Err(error) => {
            let (name, mut message) = (error.name(), error.to_string());
            if let StepError::Port(PortError::Unavailable { source, .. }) = &error {
                message = format!("{message}: {source}");
            }
            Err((name.to_owned(), json!({"errorType": name, "errorMessage": message}).to_string()))
        }
    }
}

async fn prepare(process: Arc<Process>, id: BuildId) -> Answer {
    answered(prepare_build::run(&parts::prepare_build(&process), prepare_build::Input { build_id: id }).await)
}

async fn launch(process: Arc<Process>, id: BuildId, task_token: String) -> Answer {
    let input = start_runner::Input { build_id: id, task_token };
    answered(start_runner::run(&parts::start_runner(&process), input).await)
}

async fn finish(process: Arc<Process>, id: BuildId, artifacts: Value) -> Answer {
    let artifacts = match serde_json::from_value(artifacts) {
        Ok(artifacts) => artifacts,
        Err(error) => return Err(("States.ParameterPathFailure".to_owned(), error.to_string())),
    };
    let input = finish_build::Input { build_id: id, artifacts };
    answered(finish_build::run(&parts::reconcile(&process), input).await)
}

async fn clean(process: Arc<Process>, id: BuildId, error: Caught) -> Answer {
    process.world.state(|state| state.say(|| format!("cleans up {} after {}", short(id), error.error)));
    answered(clean_up::run(&parts::reconcile(&process), clean_up::Input { build_id: id, error }).await)
}
