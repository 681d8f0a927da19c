//! Puts the pieces together, says how to use them, and takes them down again.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, bail};
use ciab_local_ec2::{Ec2, Ec2Options, InstanceProfile, LoopbackBlock};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::codebuild::{self, CodeBuild};
use crate::edge::{self, Edge};
use crate::lambda_host::LambdaHost;
use crate::moto::Moto;
use crate::permissions::Permissions;
use crate::provision::Provisioner;
use crate::settings::Settings;
use crate::work_dir::WorkDir;
use crate::{event_source, gateway, schedule};

/// Runs the stack until a signal ends it. `pid` is the process that the user sees.
pub(crate) fn run(settings: &Settings, work_dir: &WorkDir, pid: u32) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(serve(settings, work_dir, pid));
    runtime.shutdown_background();
    result
}

async fn serve(settings: &Settings, work_dir: &WorkDir, pid: u32) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hang_up.recv() => {}
        }
    };
    let gateway_listener = listen(settings.up.gateway_port).await?;
    let edge_listener = listen(0).await?;
    let addresses = Addresses { gateway: gateway_listener.local_addr()?, edge: edge_listener.local_addr()? };
    let stack = Stack::new(settings, work_dir, addresses).await?;
    let (moto_known, moto) = watch::channel(None);
    let (ec2_known, ec2) = watch::channel(None);
    let written = Arc::new(watch::Sender::new(0));
    let edge = Edge {
        dynamodb_writes: Arc::default(),
        written: Arc::clone(&written),
        host: Arc::clone(&stack.host),
        codebuild: Arc::clone(&stack.codebuild),
        permissions: Arc::clone(&stack.permissions),
        ec2,
        moto,
        client: stack.client.clone(),
    };
    let edge_server = tokio::spawn(axum::serve(edge_listener, edge::router(edge)).into_future());

    let start = async {
        let services = async {
            let moto = stack.start_moto(settings, work_dir).await?;
            moto_known.send_replace(Some(moto.address));
            let (ec2, ()) = tokio::try_join!(
                stack.start_ec2(settings, work_dir, moto.address),
                stack.provision(settings, moto.address)
            )?;
            anyhow::Ok((moto, ec2))
        };
        let functions = async { stack.host.warm_up().await.map_err(anyhow::Error::from) };
        tokio::try_join!(services, functions)
    };
    tokio::pin!(stop);
    let (mut moto, ec2) = tokio::select! {
        started = start => started?.0,
        () = &mut stop => return Ok(()),
    };
    let gateway = gateway::router(&settings.template, Arc::clone(&stack.host), &settings.identity.region)
        .into_make_service_with_connect_info::<SocketAddr>();
    let gateway_server = tokio::spawn(axum::serve(gateway_listener, gateway).into_future());
    let scheduled = schedule::run(
        settings.template.functions.clone(),
        Arc::clone(&stack.host),
        settings.up.poll_interval,
    );
    let schedule = tokio::spawn(scheduled);
    let caller = event_source::Caller {
        edge: addresses.edge,
        region: settings.identity.region.clone(),
        client: stack.client.clone(),
        written: written.subscribe(),
    };
    let mapped = event_source::run(settings.template.functions.clone(), Arc::clone(&stack.host), caller);
    let event_sources = tokio::spawn(mapped);
    stack.announce(settings, work_dir, pid, started)?;
    stack.provision_ec2(settings, moto.address, ec2.clone(), ec2_known);
    if let Err(reason) = ec2.can_host_instances() {
        eprintln!("This machine hosts no instances, so images are built without provisioning: {reason}\n");
    }

    let result = tokio::select! {
        () = stop => Ok(()),
        () = moto.ended() => {
            Err(anyhow::anyhow!("moto's server has ended; its output is in {}", work_dir.logs().join("moto.log").display()))
        }
    };
    tracing::info!("stopping");
    schedule.abort();
    event_sources.abort();
    gateway_server.abort();
    stack.codebuild.stop().await;
    ec2.stop().await;
    stack.host.stop().await;
    edge_server.abort();
    moto.stop().await;
    if let Some(path) = &settings.up.ready_file {
        let _ = std::fs::remove_file(path);
    }
    result
}

async fn listen(port: u16) -> anyhow::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.with_context(|| {
        format!("127.0.0.1:{port} is not free for the gateway; another stack may use it: take another with --gateway-port")
    })
}

#[derive(Clone, Copy)]
struct Addresses {
    gateway: SocketAddr,
    edge: SocketAddr,
}

struct Stack {
    addresses: Addresses,
    client: reqwest::Client,
    host: Arc<LambdaHost>,
    codebuild: Arc<CodeBuild>,
    permissions: Arc<Permissions>,
    /// What a process needs to reach the stack's AWS, but for whose key it has.
    environment: Vec<(String, String)>,
}

impl Stack {
    async fn new(settings: &Settings, work_dir: &WorkDir, addresses: Addresses) -> anyhow::Result<Self> {
        // Everything is on the loopback address: no proxy, and no answer but the server's own.
        let client =
            reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build()?;
        let endpoint = format!("http://{}", addresses.edge);
        let advertised = settings.up.advertise_endpoint.as_deref().unwrap_or(&endpoint);
        let environment: Vec<(String, String)> = [
            ("AWS_ENDPOINT_URL", advertised),
            ("AWS_SECRET_ACCESS_KEY", "local"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
        let region = &settings.identity.region;
        let permissions = Permissions::new(&settings.template, settings.up.called_actions.as_deref());
        let permissions =
            Arc::new(permissions.map_err(|error| anyhow::anyhow!("the template's permissions: {error}"))?);
        let mut function_environment = environment.clone();
        if let Some(certificates) = &settings.up.certificates {
            let certificates = std::path::absolute(certificates)?.display().to_string();
            function_environment.push(("SSL_CERT_FILE".to_owned(), certificates));
        }
        let host = LambdaHost::new(
            &settings.template.functions,
            &settings.up.functions_dir,
            &work_dir.logs().join("functions"),
            addresses.edge.to_string(),
            region,
            function_environment,
        );
        let mut runner_environment = environment.clone();
        if settings.packer_serves() {
            let packer = settings.up.packer.display().to_string();
            runner_environment.push(("CIAB_PACKER_BINARY".to_owned(), packer));
        }
        let surroundings = codebuild::Surroundings {
            region: region.clone(),
            endpoint,
            client: client.clone(),
            work_dir: work_dir.builds(),
            logs: work_dir.logs().join("builds"),
            environment: runner_environment,
            isolate: codebuild::can_isolate().await,
        };
        let codebuild = CodeBuild::new(settings.template.runner_projects.clone(), surroundings);
        let (host, codebuild) = (Arc::new(host), Arc::new(codebuild));
        Ok(Self { addresses, client, host, codebuild, permissions, environment })
    }

    async fn start_moto(&self, settings: &Settings, work_dir: &WorkDir) -> anyhow::Result<Moto> {
        let log = work_dir.logs().join("moto.log");
        let port = self.addresses.edge.port();
        let base_images = Ec2::base_images(settings.up.root_filesystem.as_deref());
        let folder = work_dir.moto();
        Ok(Moto::start(&settings.up.moto_server, port, &base_images, &folder, &log, &self.client).await?)
    }

    async fn start_ec2(
        &self,
        settings: &Settings,
        work_dir: &WorkDir,
        moto: SocketAddr,
    ) -> anyhow::Result<Ec2> {
        let mut environment = self.environment.clone();
        if settings.packer_serves() {
            let packer = InstanceProfile::place_of(&settings.up.packer);
            environment.push(("CIAB_PACKER_BINARY".to_owned(), packer.display().to_string()));
        }
        // Every instance that has a profile has the same one here.
        let role = match settings.template.instance_profiles.as_slice() {
            [] => None,
            [profile] => Some(profile.role.clone()),
            _ => bail!("the template has several instance profiles; the local stack can tell no two apart"),
        };
        environment.extend(role.map(|role| ("AWS_ACCESS_KEY_ID".to_owned(), role)));
        let options = Ec2Options {
            moto: format!("http://{moto}").parse()?,
            work_dir: work_dir.ec2(),
            root_filesystem: settings.up.root_filesystem.clone(),
            addresses: LoopbackBlock::claim_any()?,
            consoles: Some(work_dir.logs().join("instances")),
            instance_profile: InstanceProfile { environment, programs: vec![settings.up.packer.clone()] },
        };
        Ok(Ec2::start(options).await?)
    }

    /// After the stack is ready, beside whatever it does then: calls to EC2 wait until it is done.
    fn provision_ec2(
        &self,
        settings: &Settings,
        moto: SocketAddr,
        ec2: Ec2,
        known: watch::Sender<Option<Ec2>>,
    ) {
        let (client, region) = (self.client.clone(), settings.identity.region.clone());
        let (template, runner) = (settings.template.clone(), settings.up.runner.clone());
        let permissions = Arc::clone(&self.permissions);
        tokio::spawn(async move {
            let provisioner = Provisioner { moto, region: &region, client: &client };
            match provisioner.create_for_ec2(&template, &runner).await {
                Ok(ids) => permissions.learn(&ids),
                Err(error) => tracing::error!("no runner can be started on EC2: {}", crate::chain(&error)),
            }
            known.send_replace(Some(ec2));
        });
    }

    async fn provision(&self, settings: &Settings, moto: SocketAddr) -> anyhow::Result<()> {
        let provisioner = Provisioner { moto, region: &settings.identity.region, client: &self.client };
        let buildspec = settings.up.infra.join("buildspec.yml");
        Ok(provisioner.create(&settings.template, &settings.up.runner, &buildspec).await?)
    }

    fn announce(
        &self,
        settings: &Settings,
        work_dir: &WorkDir,
        pid: u32,
        started: Instant,
    ) -> anyhow::Result<()> {
        let gateway_url = format!("http://{}", self.addresses.gateway);
        let endpoint = format!("http://{}", self.addresses.edge);
        let logs = work_dir.logs();
        if let Some(path) = &settings.up.ready_file {
            let document = json!({
                "gateway_url": gateway_url,
                "aws_endpoint_url": endpoint,
                "region": settings.identity.region,
                "api_key": crate::API_KEY,
                "pid": pid,
                "logs": logs,
            });
            write_whole(path, &format!("{document}\n"))?;
        }
        eprintln!(
            "
ciab-local is ready after {seconds:.1} seconds: {gateway_url}

  export CIAB_SERVER_URL={gateway_url}
  export CIAB_API_KEY={key}

  ciab image build --provider claude-code --follow
  ciab image list

AWS endpoint: {endpoint}  (region {region})
Logs:         {logs}
Ctrl-C stops it and leaves nothing behind.
",
            seconds = started.elapsed().as_secs_f64(),
            key = crate::API_KEY,
            region = settings.identity.region,
            logs = logs.display(),
        );
        Ok(())
    }
}

/// Written beside its place and moved there, so that a reader never sees half of it.
fn write_whole(path: &Path, content: &str) -> anyhow::Result<()> {
    let Some(name) = path.file_name() else { bail!("{} is no file's name", path.display()) };
    let mut beside = name.to_owned();
    beside.push(".new");
    let beside = path.with_file_name(beside);
    std::fs::write(&beside, content)
        .and_then(|()| std::fs::rename(&beside, path))
        .with_context(|| format!("{} cannot be written", path.display()))
}
