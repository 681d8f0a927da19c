//! Stop, start, reboot, terminate: the body first or moto first, so that no client sees a state the body has not reached.
//!
//! Corrects what moto lacks: it starts or stops terminated instances (which brings them back), and keeps the network
//! interface of a terminated one.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use http::{Response, StatusCode};

use crate::{
    answer::{self, text_at},
    instance::Instance,
    launch::wait_for_sshd,
    moto::Caller,
    query::Query,
    registry::Key,
    service::{Handled, Service, remove_tree},
};

impl Service {
    pub(crate) async fn stop_instances(self: &Arc<Self>, caller: &Caller, query: &Query) -> Handled {
        if let Some(refusal) = self.refuse_terminated(caller, query) {
            return Ok(refusal);
        }
        let response = self.moto.send_query(caller, query).await?;
        if response.status().is_success() {
            // Shown as `stopping` until the body is gone, which takes well under a second. Waiting for it here spares
            // clients their next look, which is 15 s away in Packer.
            let named = self.named(caller, query);
            join_all(named.iter().map(|instance| stop(instance))).await;
        }
        Ok(response)
    }

    pub(crate) async fn start_instances(self: &Arc<Self>, caller: &Caller, query: &Query) -> Handled {
        if let Some(refusal) = self.refuse_terminated(caller, query) {
            return Ok(refusal);
        }
        if let Some(stopping) = self
            .named(caller, query)
            .into_iter()
            .find(|instance| instance.body().is_some_and(|body| body.is_ending()) && instance.is_alive())
        {
            return Ok(incorrect_state(&stopping.key.id, "stopping"));
        }
        let response = self.moto.send_query(caller, query).await?;
        if response.status().is_success() {
            for instance in self.named(caller, query).into_iter().filter(|instance| instance.hosted) {
                let _life = instance.life.lock().await;
                if !instance.is_alive() {
                    self.boot(&instance).await;
                    wait_for_sshd(&instance).await;
                }
            }
        }
        Ok(response)
    }

    pub(crate) async fn reboot_instances(self: &Arc<Self>, caller: &Caller, query: &Query) -> Handled {
        if let Some(refusal) = self.refuse_terminated(caller, query) {
            return Ok(refusal);
        }
        let response = self.moto.send_query(caller, query).await?;
        if response.status().is_success() {
            for instance in self.named(caller, query).into_iter().filter(|instance| instance.is_alive()) {
                let service = self.clone();
                tokio::spawn(async move {
                    let _life = instance.life.lock().await;
                    // It may have been stopped or terminated while this waited.
                    if instance.is_alive() {
                        instance.shut_down().await;
                        service.boot(&instance).await;
                    }
                });
            }
        }
        Ok(response)
    }

    /// The bodies end first: `terminated` is then true from the moment moto says it.
    pub(crate) async fn terminate_instances(self: &Arc<Self>, caller: &Caller, query: &Query) -> Handled {
        let named = self.named(caller, query);
        let all_are_known = named.len() == query.list("InstanceId").len();
        if all_are_known && !self.any_is_protected(caller, &named).await? {
            join_all(named.iter().map(|instance| end(instance))).await;
        }
        let response = self.moto.send_query(caller, query).await?;
        if !response.status().is_success() {
            for instance in named {
                instance.cancel_termination();
            }
            return Ok(response);
        }
        // Where moto had to be asked first (some instances are not ours), ours end now.
        join_all(named.iter().map(|instance| end(instance))).await;
        for id in query.list("InstanceId") {
            let mut registry = self.registry();
            registry.terminated.insert(Key::new(&caller.region, id));
            registry.addresses.remove(&Key::new(&caller.region, id));
        }
        for instance in named {
            self.forget(&instance).await;
        }
        Ok(response)
    }

    /// Termination protection is moto's to know, and must be known before anything is killed.
    async fn any_is_protected(
        &self,
        caller: &Caller,
        instances: &[Arc<Instance>],
    ) -> Result<bool, crate::moto::MotoError> {
        for instance in instances {
            let protection = self.attribute(caller, &instance.key.id, "disableApiTermination").await?;
            if protection.is_some_and(|value| value.eq_ignore_ascii_case("true")) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn attribute(
        &self,
        caller: &Caller,
        id: &str,
        name: &str,
    ) -> Result<Option<String>, crate::moto::MotoError> {
        let question = Query::new("DescribeInstanceAttribute").with("InstanceId", id).with("Attribute", name);
        let root = self.moto.call(caller, &question).await?;
        Ok(text_at(&root, &[name, "value"]))
    }

    /// Somebody inside the instance shut it down: it stops or terminates, as its launch said.
    pub(crate) async fn shut_down_from_within(self: &Arc<Self>, instance: &Arc<Instance>) {
        let id = &instance.key.id;
        let behavior = self.attribute(&instance.caller, id, "instanceInitiatedShutdownBehavior").await;
        if matches!(behavior, Ok(Some(behavior)) if behavior == "terminate") {
            self.terminate_unasked(instance).await;
            return;
        }
        let stop = Query::new("StopInstances").with("InstanceId.1", id.clone());
        if let Err(error) = self.moto.call(&instance.caller, &stop).await {
            tracing::error!(instance = id, %error, "moto could not be told that the instance stopped");
        }
    }

    /// Terminates an instance that nobody asked to.
    pub(crate) async fn terminate_unasked(self: &Arc<Self>, instance: &Arc<Instance>) {
        let terminate = Query::new("TerminateInstances").with("InstanceId.1", instance.key.id.clone());
        if let Err(error) = self.terminate_instances(&instance.caller, &terminate).await {
            tracing::error!(instance = instance.key.id, %error, "moto could not be told that the instance ended");
        }
    }

    /// Removes what is left of a terminated instance: its files, layers nobody else needs, its network interfaces.
    async fn forget(self: &Arc<Self>, instance: &Arc<Instance>) {
        self.registry().instances.remove(&instance.key);
        for interface in &instance.interfaces {
            let delete = Query::new("DeleteNetworkInterface").with("NetworkInterfaceId", interface.clone());
            if let Err(error) = self.moto.call(&instance.caller, &delete).await {
                tracing::debug!(interface, %error, "a network interface was gone already");
            }
        }
        let (service, directory) = (self.clone(), instance.directory().to_owned());
        // An agent's files can be many; nobody waits for them to be removed.
        tokio::spawn(async move {
            remove_tree(directory).await;
            service.remove_unused_layers();
        });
    }

    /// The instances a call names, as far as they are ours.
    fn named(&self, caller: &Caller, query: &Query) -> Vec<Arc<Instance>> {
        let ids = query.list("InstanceId");
        ids.into_iter().filter_map(|id| self.instance(&Key::new(&caller.region, id))).collect()
    }

    fn refuse_terminated(&self, caller: &Caller, query: &Query) -> Option<Response<Bytes>> {
        let registry = self.registry();
        let ids = query.list("InstanceId");
        let id = ids.into_iter().find(|id| registry.terminated.contains(&Key::new(&caller.region, id)))?;
        Some(incorrect_state(id, "terminated"))
    }
}

/// Ends a body for good. Idempotent.
async fn end(instance: &Instance) {
    instance.begin_termination();
    // First the plug, so that an operation that holds the instance's life, waiting for its body, comes to its end.
    instance.kill().await;
    let _life = instance.life.lock().await;
    instance.kill().await;
}

/// Ends a body in good order; it can be started again.
async fn stop(instance: &Instance) {
    let _life = instance.life.lock().await;
    instance.shut_down().await;
}

fn incorrect_state(id: &str, state: &str) -> Response<Bytes> {
    answer::error(
        StatusCode::BAD_REQUEST,
        "IncorrectInstanceState",
        &format!(
            "The instance '{id}' is not in a state from which it can be started, stopped or rebooted: it is {state}."
        ),
    )
}
