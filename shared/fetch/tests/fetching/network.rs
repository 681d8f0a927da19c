//! A network that writes down what it is asked for, and leads every connection to loopback.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::time::Duration;

use ciab_fetch::{Connector, NameError, Resolver};

#[derive(Default)]
pub(crate) struct Network {
    /// What each name answers, one time after the other; the last answer is repeated.
    names: Mutex<BTreeMap<String, Vec<Vec<IpAddr>>>>,
    /// What every other name answers.
    everything: Mutex<Vec<IpAddr>>,
    server: Mutex<Option<SocketAddr>>,
    asked: Mutex<Vec<String>>,
    dialled: Mutex<Vec<SocketAddr>>,
}

impl Network {
    /// What a name answers, one time after the other.
    pub(crate) fn name(&self, name: &str, answers: &[&[&str]]) {
        let answer = |texts: &&[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        self.names.lock().unwrap().insert(name.into(), answers.iter().map(answer).collect());
    }

    /// What every name answers that is not known otherwise.
    pub(crate) fn every_other_name(&self, address: &str) {
        *self.everything.lock().unwrap() = vec![address.parse().unwrap()];
    }

    /// Whom every connection leads to.
    pub(crate) fn serve(&self, server: SocketAddr) {
        assert!(server.ip().is_loopback());
        *self.server.lock().unwrap() = Some(server);
    }

    /// The names asked for since the last call.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    /// The addresses dialled since the last call.
    pub(crate) fn dialled(&self) -> Vec<String> {
        let dialled = std::mem::take(&mut *self.dialled.lock().unwrap());
        dialled.iter().map(ToString::to_string).collect()
    }
}

impl Resolver for Network {
    fn resolve(&self, name: &str, _: Duration) -> Result<Vec<IpAddr>, NameError> {
        self.asked.lock().unwrap().push(name.to_owned());
        if name == "servfail.example" {
            return Err(NameError::Unavailable);
        }
        let mut names = self.names.lock().unwrap();
        let Some(answers) = names.get_mut(name) else {
            let everything = self.everything.lock().unwrap().clone();
            return if everything.is_empty() { Err(NameError::Unknown) } else { Ok(everything) };
        };
        if answers.len() > 1 { Ok(answers.remove(0)) } else { Ok(answers[0].clone()) }
    }
}

impl Connector for Network {
    fn connect(&self, address: SocketAddr, within: Duration) -> io::Result<TcpStream> {
        self.dialled.lock().unwrap().push(address);
        let server = *self.server.lock().unwrap();
        TcpStream::connect_timeout(&server.ok_or(io::ErrorKind::ConnectionRefused)?, within)
    }
}
