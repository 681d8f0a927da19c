//! `ciab-local-ec2`: EC2 alone on one machine, in front of a moto server that runs already.
//!
//! For trying out Packer templates and for this crate's own tests; `ciab-local` has the same inside the whole stack.

use std::{io::Write, net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Context;
use axum::{Router, body::Bytes, extract::State};
use ciab_local_ec2::{Ec2, Ec2Options, LoopbackBlock};
use clap::Parser;
use http::{Request, Response};

#[derive(Debug, Parser)]
#[command(about)]
struct Arguments {
    /// Print the list of base images for moto's MOTO_AMIS_PATH and end.
    #[arg(long)]
    base_images: bool,
    /// Build the root file system in this directory unless it is there already, print where it is and end.
    #[arg(long, value_name = "DIRECTORY")]
    build_root_filesystem: Option<PathBuf>,
    /// Where moto server listens.
    #[arg(long, default_value = "http://127.0.0.1:5000")]
    moto: reqwest::Url,
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// A directory of this program's own for instances and layers.
    #[arg(long, default_value = "ciab-local-ec2")]
    work_dir: PathBuf,
    /// An unpacked root file system for instances to boot from.
    #[arg(long)]
    root_filesystem: Option<PathBuf>,
    /// Instances get addresses in 127.THIS.0.0/16; the first free block if not given.
    #[arg(long)]
    address_block: Option<u8>,
    /// Keep the instances' consoles in this directory
    #[arg(long, value_name = "DIRECTORY")]
    consoles: Option<PathBuf>,
    /// A variable for the user data of instances with an instance profile; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    profile_environment: Vec<(String, String)>,
    /// A program of this machine that instances with an instance profile see in /run/host; may be repeated
    #[arg(long, value_name = "FILE")]
    profile_programs: Vec<PathBuf>,
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must have the form NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn main() -> ExitCode {
    if let Some(code) = ciab_local_ec2::run_if_asked() {
        return code;
    }
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(arguments: Arguments) -> anyhow::Result<()> {
    if arguments.base_images {
        let list = Ec2::base_images(arguments.root_filesystem.as_deref());
        writeln!(std::io::stdout(), "{list:#}")?;
        return Ok(());
    }
    if let Some(cache) = arguments.build_root_filesystem {
        let root = ciab_local_ec2::build_root_filesystem(&cache).await?;
        writeln!(std::io::stdout(), "{}", root.display())?;
        return Ok(());
    }
    let addresses = match arguments.address_block {
        Some(octet) => LoopbackBlock::claim(octet)?,
        None => LoopbackBlock::claim_any()?,
    };
    let ec2 = Ec2::start(Ec2Options {
        moto: arguments.moto,
        work_dir: arguments.work_dir,
        root_filesystem: arguments.root_filesystem,
        addresses,
        consoles: arguments.consoles,
        instance_profile: ciab_local_ec2::InstanceProfile {
            environment: arguments.profile_environment,
            programs: arguments.profile_programs,
        },
    })
    .await?;
    let listener = tokio::net::TcpListener::bind(arguments.listen).await.context("can't listen")?;
    writeln!(std::io::stdout(), "http://{}", listener.local_addr()?)?;
    std::io::stdout().flush()?;
    let edge = Router::new().fallback(handle).with_state(ec2.clone());
    axum::serve(listener, edge).with_graceful_shutdown(asked_to_end()).await?;
    ec2.stop().await;
    Ok(())
}

async fn handle(
    State(ec2): State<Ec2>,
    method: http::Method,
    uri: http::Uri,
    headers: http::HeaderMap,
    body: Bytes,
) -> Response<axum::body::Body> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    ec2.handle(request).await.map(axum::body::Body::from)
}

async fn asked_to_end() {
    let mut terminate = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(terminate) => terminate,
        Err(_) => return std::future::pending().await,
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
