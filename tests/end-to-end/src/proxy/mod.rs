//! A proxy between the stack's clients (functions, runner, Packer) and its edge, which does to their calls what a network
//! does: holds one, loses its reply, never delivers it. It also counts them.
//!
//! A call that is held is a moment: whoever holds it can kill what he likes while he knows where everything stands, without
//! a sleep. Must never change what passes.

mod call;
mod exchange;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

pub use call::Call;

/// How long a call may be held: a client that waits longer gives up by itself, and the moment is over.
const LONGEST_HOLD: Duration = Duration::from_secs(15);

/// Which calls are meant.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// `service.operation`, as [`Call`] shows itself.
    pub call: &'static str,
    /// The program that makes it: a function's folder, `ciab-runner`, `packer`; none for any.
    pub by: Option<&'static str>,
    /// What its path or body contains; empty for any.
    pub containing: String,
    /// Which of those that match, from 1.
    pub nth: usize,
}

impl Pattern {
    /// The first call of this name, by anyone.
    pub fn call(call: &'static str) -> Self {
        Self { call, by: None, containing: String::new(), nth: 1 }
    }

    /// Made by this program.
    pub fn by(self, program: &'static str) -> Self {
        Self { by: Some(program), ..self }
    }

    /// With this in its path or body.
    pub fn containing(self, text: &str) -> Self {
        Self { containing: text.to_owned(), ..self }
    }

    /// The nth of them.
    pub fn nth(self, nth: usize) -> Self {
        Self { nth, ..self }
    }

    fn may_match(&self, call: &Call) -> bool {
        call.name() == self.call
            && (call.body.contains(&self.containing) || call.path.contains(&self.containing))
    }

    /// Looks for the caller only where that can still decide: it takes milliseconds.
    fn matches(&self, call: &Call) -> bool {
        self.may_match(call)
            && self.by.is_none_or(|program| call.caller().is_some_and(|caller| caller.program() == program))
    }
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is made, and answered.
    Pass,
    /// It is made, and the connection ends without an answer.
    LoseReply,
    /// It is never made, and the connection ends.
    Lose,
}

/// A running proxy; dropping it ends it.
pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    edge: Option<SocketAddr>,
    stopped: bool,
    traps: BTreeMap<usize, Armed>,
    answers: Vec<(Pattern, Answer)>,
    counters: Vec<(Pattern, usize)>,
    last_trap: usize,
    calls: BTreeMap<String, usize>,
    waited: BTreeMap<String, Duration>,
}

type Answer = Arc<dyn Fn(&Call) -> String + Send + Sync>;

struct Armed {
    pattern: Pattern,
    seen: usize,
    held: Option<Call>,
    fate: Option<Fate>,
    over: bool,
}

impl Proxy {
    /// Listens on a free port. Calls wait until it knows where to pass them.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen for the proxy")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                if serving.lock().stopped {
                    return;
                }
                let Ok(client) = client else { continue };
                let exchanging = Arc::clone(&serving);
                thread::spawn(move || {
                    if let Err(error) = exchanging.exchange(client, address) {
                        eprintln!("proxy: {error:#}");
                    }
                });
            }
        });
        Ok(Self { shared, address })
    }

    /// What clients are given as AWS's endpoint.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Passes calls on to this endpoint from now on.
    pub fn pass_on_to(&self, endpoint: &str) -> Result<()> {
        local_stack::http_client::require_loopback(endpoint)?;
        let address = endpoint.trim_start_matches("http://").trim_end_matches('/');
        self.shared.lock().edge = Some(address.parse().with_context(|| format!("read {endpoint}"))?);
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Holds the call that the pattern means, once, until the trap says what becomes of it.
    pub fn hold(&self, pattern: Pattern) -> Trap {
        let mut state = self.shared.lock();
        state.last_trap += 1;
        let id = state.last_trap;
        state.traps.insert(id, Armed { pattern, seen: 0, held: None, fate: None, over: false });
        Trap { shared: Arc::clone(&self.shared), id }
    }

    /// Loses the reply of the call that the pattern means, once.
    pub fn lose_reply(&self, pattern: Pattern) -> Trap {
        let trap = self.hold(pattern);
        trap.decide(Fate::LoseReply);
        trap
    }

    /// Answers such calls, all of them, with a document of the service's own protocol instead of the service.
    pub fn answer(&self, pattern: Pattern, answer: impl Fn(&Call) -> String + Send + Sync + 'static) {
        self.shared.lock().answers.push((pattern, Arc::new(answer)));
    }

    /// Counts such calls from now on.
    pub fn count(&self, pattern: Pattern) -> Counter {
        let mut state = self.shared.lock();
        state.counters.push((pattern, 0));
        Counter { shared: Arc::clone(&self.shared), index: state.counters.len() - 1 }
    }

    /// How many calls of each name came so far.
    pub fn calls(&self) -> BTreeMap<String, usize> {
        self.shared.lock().calls.clone()
    }
}

impl Proxy {
    /// How long the stack took to answer the calls of each name so far, all together.
    pub fn waited(&self) -> BTreeMap<String, Duration> {
        self.shared.lock().waited.clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
        // Wakes the thread that waits for the next client.
        let _ = TcpStream::connect(self.address);
    }
}

/// Counts calls.
pub struct Counter {
    shared: Arc<Shared>,
    index: usize,
}

impl Counter {
    /// How many there were.
    pub fn value(&self) -> usize {
        self.shared.lock().counters[self.index].1
    }
}

/// Waits for a call. Dropping it lets the call pass, whether it has come or not.
pub struct Trap {
    shared: Arc<Shared>,
    id: usize,
}

impl Trap {
    /// The call, if it has come.
    pub fn caught(&self) -> Option<Call> {
        self.shared.lock().traps.get(&self.id)?.held.clone()
    }

    /// Whether the call came and its fate was carried out, by the stack too.
    pub fn is_over(&self) -> bool {
        self.shared.lock().traps.get(&self.id).is_some_and(|armed| armed.over)
    }

    /// Says what becomes of the call, which may not have come yet.
    pub fn decide(&self, fate: Fate) {
        if let Some(armed) = self.shared.lock().traps.get_mut(&self.id) {
            armed.fate = Some(fate);
        }
        self.shared.changed.notify_all();
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        self.shared.lock().traps.remove(&self.id);
        self.shared.changed.notify_all();
    }
}

impl Shared {
    /// A holder that panicked left nothing half-done: each makes one assignment.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn exchange(&self, mut client: TcpStream, proxy: SocketAddr) -> Result<()> {
        let from = client.peer_addr()?;
        // A client that was killed, or changed its mind, is no error.
        let Ok(Some(request)) = exchange::read(&mut client) else { return Ok(()) };
        let call = Call::new(&request.head, &request.body, from, proxy);
        self.note(&call);
        if let Some(answer) = self.own_answer(&call) {
            let document = exchange::document("200 OK", "application/x-amz-json-1.1", &answer(&call));
            exchange::answer(&mut client, &document);
            return Ok(());
        }
        let (trap, fate) = self.fate_of(&call)?;
        if fate != Fate::Lose {
            let edge = self.edge()?;
            // Also for a client that is gone: what it has sent is under way.
            let began = Instant::now();
            let answer = exchange::forward(&request, edge);
            *self.lock().waited.entry(call.name()).or_default() += began.elapsed();
            if fate == Fate::Pass {
                let unreachable = || exchange::document("502 Bad Gateway", "text/plain", "the stack is gone");
                exchange::answer(&mut client, &answer.unwrap_or_else(|_| unreachable()));
            }
        }
        if let Some(trap) = trap
            && let Some(armed) = self.lock().traps.get_mut(&trap)
        {
            armed.over = true;
        }
        Ok(())
    }

    fn note(&self, call: &Call) {
        *self.lock().calls.entry(call.name()).or_default() += 1;
        let patterns: Vec<Pattern> =
            self.lock().counters.iter().map(|(pattern, _)| pattern.clone()).collect();
        for (index, _) in patterns.iter().enumerate().filter(|(_, pattern)| pattern.matches(call)) {
            self.lock().counters[index].1 += 1;
        }
    }

    fn own_answer(&self, call: &Call) -> Option<Answer> {
        let answers = self.lock().answers.clone();
        answers.into_iter().find(|(pattern, _)| pattern.matches(call)).map(|(_, answer)| answer)
    }

    fn edge(&self) -> Result<SocketAddr> {
        let state = self.lock();
        let waiting = self
            .changed
            .wait_while(state, |state| state.edge.is_none() && !state.stopped)
            .unwrap_or_else(PoisonError::into_inner);
        waiting.edge.context("the proxy was never told where to pass calls on to")
    }

    /// Holds the call if somebody waits for it; says who.
    fn fate_of(&self, call: &Call) -> Result<(Option<usize>, Fate)> {
        let candidates: Vec<(usize, Pattern)> =
            self.lock().traps.iter().map(|(id, armed)| (*id, armed.pattern.clone())).collect();
        for (id, _) in candidates.into_iter().filter(|(_, pattern)| pattern.matches(call)) {
            let mut state = self.lock();
            let Some(armed) = state.traps.get_mut(&id) else { continue };
            armed.seen += 1;
            if armed.seen != armed.pattern.nth {
                continue;
            }
            armed.held = Some(call.clone());
            self.changed.notify_all();
            let began = Instant::now();
            loop {
                match state.traps.get(&id) {
                    Some(armed) if armed.fate.is_none() && !state.stopped => {}
                    Some(armed) => return Ok((Some(id), armed.fate.unwrap_or(Fate::Pass))),
                    None => return Ok((None, Fate::Pass)),
                }
                ensure!(
                    began.elapsed() < LONGEST_HOLD,
                    "{call} was held for {} s and nobody said what becomes of it",
                    LONGEST_HOLD.as_secs()
                );
                let waited = self.changed.wait_timeout(state, LONGEST_HOLD);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        Ok((None, Fate::Pass))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use local_stack::http_client;

    use super::*;

    /// A server that answers every request with how many it has had, and counts them.
    fn edge() -> (String, Arc<Mutex<usize>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let made = Arc::new(Mutex::new(0));
        let counting = Arc::clone(&made);
        thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = client.unwrap();
                if exchange::read(&mut client).unwrap().is_none() {
                    continue;
                }
                let number = {
                    let mut made = counting.lock().unwrap();
                    *made += 1;
                    *made
                };
                exchange::answer(
                    &mut client,
                    &exchange::document("200 OK", "text/plain", &number.to_string()),
                );
            }
        });
        (url, made)
    }

    fn put(url: &str) -> Result<String> {
        let mut answer = http_client::agent()
            .post(url)
            .header("x-amz-target", "DynamoDB_20120810.PutItem")
            .send(r#"{"TableName":"t"}"#)?;
        Ok(answer.body_mut().read_to_string()?)
    }

    fn proxied() -> (Proxy, Arc<Mutex<usize>>) {
        let (edge, made) = edge();
        let proxy = Proxy::start().unwrap();
        proxy.pass_on_to(&edge).unwrap();
        (proxy, made)
    }

    #[test]
    fn what_nobody_waits_for_passes_and_is_counted() {
        let (proxy, _) = proxied();
        let counter = proxy.count(Pattern::call("dynamodb.PutItem").containing("TableName"));
        let other = proxy.count(Pattern::call("dynamodb.PutItem").containing("elsewhere"));
        assert_eq!(put(&proxy.url()).unwrap(), "1");
        assert_eq!(put(&proxy.url()).unwrap(), "2");
        assert_eq!(proxy.calls(), BTreeMap::from([("dynamodb.PutItem".to_owned(), 2)]));
        assert_eq!((counter.value(), other.value()), (2, 0));
    }

    #[test]
    fn the_reply_of_the_call_that_was_meant_is_lost_after_it_was_made() {
        let (proxy, made) = proxied();
        let trap = proxy.lose_reply(Pattern::call("dynamodb.PutItem").nth(2));
        assert_eq!(put(&proxy.url()).unwrap(), "1");
        assert!(trap.caught().is_none());
        assert!(put(&proxy.url()).is_err(), "a lost reply is an error for its client");
        assert_eq!(*made.lock().unwrap(), 2);
        assert_eq!(trap.caught().unwrap().name(), "dynamodb.PutItem");
        assert_eq!(put(&proxy.url()).unwrap(), "3", "once only");
    }

    #[test]
    fn a_call_is_held_and_its_caller_known_until_its_fate_is_decided() {
        let (proxy, made) = proxied();
        let trap = proxy.hold(Pattern::call("dynamodb.PutItem"));
        let url = proxy.url();
        let client = thread::spawn(move || put(&url));
        let call = crate::eventually("the call is held", || Ok(trap.caught())).unwrap();
        assert_eq!(*made.lock().unwrap(), 0);
        assert_eq!(call.caller().unwrap().pid(), i32::try_from(std::process::id()).unwrap());
        trap.decide(Fate::Lose);
        assert!(client.join().unwrap().is_err());
        assert_eq!(*made.lock().unwrap(), 0, "it was never made");
    }

    #[test]
    fn a_call_by_another_program_is_not_meant() {
        let (proxy, _) = proxied();
        let _trap = proxy.hold(Pattern::call("dynamodb.PutItem").by("packer"));
        assert_eq!(put(&proxy.url()).unwrap(), "1");
    }

    #[test]
    fn an_answer_of_ones_own_keeps_the_call_from_the_stack() {
        let (proxy, made) = proxied();
        proxy.answer(Pattern::call("dynamodb.PutItem"), |call| call.body.clone());
        assert_eq!(put(&proxy.url()).unwrap(), r#"{"TableName":"t"}"#);
        assert_eq!(*made.lock().unwrap(), 0);
    }

    #[test]
    fn calls_wait_for_the_stack_to_be_there() {
        let proxy = Proxy::start().unwrap();
        let mut client = TcpStream::connect(proxy.address).unwrap();
        client.write_all(b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n").unwrap();
        crate::eventually("the call is seen", || Ok((!proxy.calls().is_empty()).then_some(()))).unwrap();
        proxy.pass_on_to(&edge().0).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }
}
