//! One request after another: which of them concern bodies, and what becomes of the answers of all others.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use tokio::task::JoinSet;

use crate::{
    CannotHost, Ec2Error, Ec2Options,
    address::LoopbackBlock,
    answer,
    body::Body,
    instance::{Instance, Store},
    launch::Tokens,
    moto::{Caller, Moto, MotoError},
    query::Query,
    registry::{Key, Registry},
    rewrite::{self, BodyState, InstanceView},
    work_dir::WorkDir,
};

/// What a handler of one call gives: EC2's errors are answers too.
pub(crate) type Handled = Result<Response<Bytes>, MotoError>;

#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) moto: Moto,
    pub(crate) store: Store,
    pub(crate) cannot_host: Option<CannotHost>,
    pub(crate) tokens: Tokens,
    registry: Mutex<Registry>,
    addresses: Mutex<LoopbackBlock>,
    unassigned: Ipv4Addr,
    work_dir: WorkDir,
    stopped: tokio::sync::watch::Sender<bool>,
    /// Layers being removed: a large one takes seconds, and nobody who deletes a snapshot waits for that in EC2 either.
    removals: Mutex<JoinSet<()>>,
}

impl Service {
    pub(crate) async fn start(options: Ec2Options) -> Result<Self, Ec2Error> {
        let work_dir = WorkDir::take(&options.work_dir)?;
        let store = Store {
            work_dir: work_dir.path.clone(),
            root_filesystem: options.root_filesystem,
            consoles: options.consoles,
            profile: options.instance_profile,
        };
        let cannot_host = find_obstacle(&store).await.err();
        if let Some(reason) = &cannot_host {
            tracing::warn!(
                %reason,
                "this machine can't host instances: they exist in the API only, and images are tagged ciab:provisioned=false"
            );
        }
        Ok(Self {
            moto: Moto::new(options.moto).map_err(Ec2Error::Client)?,
            store,
            removals: Mutex::default(),
            cannot_host,
            tokens: Tokens::default(),
            registry: Mutex::new(Registry::default()),
            unassigned: options.addresses.unassigned(),
            addresses: Mutex::new(options.addresses),
            work_dir,
            stopped: tokio::sync::watch::Sender::new(false),
        })
    }

    /// Short: never held over an await.
    pub(crate) fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn instance(&self, key: &Key) -> Option<Arc<Instance>> {
        self.registry().instances.get(key).cloned()
    }

    /// Answers one request.
    pub(crate) async fn handle(self: Arc<Self>, request: Request<Bytes>) -> Response<Bytes> {
        if *self.stopped.borrow() {
            return answer::error(StatusCode::SERVICE_UNAVAILABLE, "Unavailable", "EC2 is being stopped.");
        }
        let caller = Caller::of(request.headers());
        let query = Query::parse(request.uri().query(), request.body());
        // A client that hangs up must not leave a call half done: the work goes on without it.
        let service = self.clone();
        let work = tokio::spawn(async move { service.dispatch(request, caller, query).await });
        match work.await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => error.into_response(),
            Err(error) => {
                tracing::error!(%error, "an EC2 call failed inside the stand-in");
                answer::error(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "InternalError",
                    "The EC2 stand-in failed; see its log.",
                )
            }
        }
    }

    async fn dispatch(self: &Arc<Self>, request: Request<Bytes>, caller: Caller, query: Query) -> Handled {
        let response = match query.action() {
            // Asking whether one may is moto's business.
            _ if query.is_true("DryRun") => self.moto.forward(request).await,
            "RunInstances" => self.run_instances(&caller, query).await,
            "StopInstances" => self.stop_instances(&caller, &query).await,
            "StartInstances" => self.start_instances(&caller, &query).await,
            "RebootInstances" => self.reboot_instances(&caller, &query).await,
            "TerminateInstances" => self.terminate_instances(&caller, &query).await,
            "CreateImage" => self.create_image(&caller, query).await,
            "CopyImage" => self.copy_image(&caller, query).await,
            "DeregisterImage" => self.deregister_image(&caller, query).await,
            "DeleteSnapshot" => self.delete_snapshot(&caller, &query).await,
            "DescribeInstances" => self.describe_instances(&caller, query).await,
            "DescribeImages" => self.describe_images(&caller, query).await,
            "DescribeSnapshots" => self.describe_snapshots(&caller, query).await,
            _ => self.moto.forward(request).await,
        }?;
        Ok(self.show(&caller.region, response))
    }

    /// moto fails at a filter for the instances that use an instance profile.
    async fn describe_instances(&self, caller: &Caller, mut query: Query) -> Handled {
        let profiles = query.take_filter("iam-instance-profile.arn");
        let response = self.moto.send_query(caller, &query).await?;
        let Some(profiles) = profiles.filter(|_| response.status().is_success()) else { return Ok(response) };
        let Some(mut root) = answer::parse(response.body()) else { return Ok(response) };
        for reservation in answer::items_mut(&mut root, "reservationSet") {
            answer::retain_items(reservation, "instancesSet", |instance| {
                answer::text_at(instance, &["iamInstanceProfile", "arn"])
                    .is_some_and(|profile| profiles.contains(&profile))
            });
        }
        Ok(answer::xml(response.status(), answer::write(&root)))
    }

    /// Makes an answer fit for clients: true states, loopback addresses.
    pub(crate) fn show(&self, region: &str, response: Response<Bytes>) -> Response<Bytes> {
        if !response.status().is_success() || !rewrite::is_concerned(response.body()) {
            return response;
        }
        let Some(mut root) = answer::parse(response.body()) else {
            tracing::error!("an answer with addresses in it can't be read, so it is kept back");
            return MotoError::NoXml(response.status()).into_response();
        };
        rewrite::rewrite(&mut root, self.unassigned, &mut |id| Some(self.view(&Key::new(region, id))));
        answer::xml(response.status(), answer::write(&root))
    }

    fn view(&self, key: &Key) -> InstanceView {
        let body = self.instance(key).map_or(BodyState::Absent, |instance| instance.body_state());
        let known = self.registry().addresses.get(key).copied();
        let is_terminated = self.registry().terminated.contains(key);
        let address = match known {
            Some(address) => address,
            None if is_terminated => self.unassigned,
            // Made on a way that gives no body, such as a spot fleet: it still gets an address of this machine's.
            None => self.assign_address(key),
        };
        InstanceView { address, body }
    }

    /// The instance's address from now on until it is terminated.
    pub(crate) fn assign_address(&self, key: &Key) -> Ipv4Addr {
        let mut block = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let mut registry = self.registry();
        let address = block.next_free(|address| registry.is_taken(address)).unwrap_or(self.unassigned);
        registry.addresses.insert(key.clone(), address);
        address
    }

    /// Removes the layers that nothing stands on any more.
    pub(crate) fn remove_unused_layers(&self) {
        let unused: Vec<PathBuf> = {
            let mut registry = self.registry();
            registry.take_unused_layers().into_iter().map(|layer| self.store.layer(layer)).collect()
        };
        let mut removals = self.removals.lock().unwrap_or_else(PoisonError::into_inner);
        while removals.try_join_next().is_some() {}
        for layer in unused {
            removals.spawn(remove_tree(layer));
        }
    }

    /// Ends every body, then removes all files.
    pub(crate) async fn stop(&self) {
        if self.stopped.send_replace(true) {
            return;
        }
        let instances: HashMap<_, _> = std::mem::take(&mut self.registry().instances);
        futures::future::join_all(instances.values().map(|instance| instance.kill())).await;
        // A launch under way when we began may have added one since.
        let late = std::mem::take(&mut self.registry().instances);
        futures::future::join_all(late.values().map(|instance| instance.kill())).await;
        let removals = std::mem::take(&mut *self.removals.lock().unwrap_or_else(PoisonError::into_inner));
        removals.join_all().await;
        // Files may appear while they are removed only if someone else writes there.
        if let Err(error) = self.work_dir.remove() {
            tracing::error!(%error, directory = %self.work_dir.path.display(), "files are left behind");
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        *self.stopped.borrow()
    }
}

/// Removes a directory and all in it. That it can't is worth a word, and nothing more: the next start removes it too.
pub(crate) async fn remove_tree(directory: PathBuf) {
    match tokio::fs::remove_dir_all(&directory).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%error, directory = %directory.display(), "files are left behind");
        }
        _ => {}
    }
}

/// Tries out what hosting an instance takes.
async fn find_obstacle(store: &Store) -> Result<(), CannotHost> {
    if !cfg!(target_os = "linux") {
        return Err(CannotHost("instances need Linux".to_owned()));
    }
    let Some(root) = &store.root_filesystem else {
        return Err(CannotHost("there is no root file system for instances".to_owned()));
    };
    if !root.join("usr/sbin/sshd").exists() {
        return Err(CannotHost(format!("the root file system {} has no sshd", root.display())));
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(CannotHost("instances need root".to_owned()));
    }
    let directory = store.work_dir.join("probe");
    let attempt = async {
        let spec = store.probe(&directory).map_err(|error| error.to_string())?;
        for path in [&spec.upper, &spec.work, &spec.mount_point] {
            tokio::fs::create_dir_all(path).await.map_err(|error| error.to_string())?;
        }
        Body::probe(&spec).await
    };
    let outcome = attempt.await;
    remove_tree(directory).await;
    outcome.map_err(|reason| CannotHost(format!("an instance's file system can't be made here: {reason}")))
}
