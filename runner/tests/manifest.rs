//! When the manifest is stored and when it is given up, and how soon the ledger is, on a clock that the tests hold.

mod world;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ciab_core::build::Artifact;
use ciab_core::ledger::Ledger;
use ciab_core::manifest::{Manifest, Outcome};
use ciab_runner::failure::{BuildFailure, FailureName};
use ciab_runner::ledger::LedgerWriter;
use ciab_runner::manifest::{Document, Seconds, manifest_of, store};
use ciab_runner::packer_output::decode;
use tokio::time::{Instant, sleep};
use world::{MemoryObjects, build_id};

fn document(result: &Result<Vec<Artifact>, BuildFailure>) -> Document {
    Document {
        build_id: build_id(),
        manifest: manifest_of(result, Vec::new()),
        packer_version: Some("1.6.6".into()),
        seconds: Seconds { build: Some(1.5), ..Seconds::default() },
    }
}

fn failed() -> Result<Vec<Artifact>, BuildFailure> {
    Err(BuildFailure::new(FailureName::PackerFailed, "it broke"))
}

#[tokio::test(start_paused = true)]
async fn it_is_the_domains_manifest_with_more_for_people() {
    let objects = MemoryObjects::default();
    let made: Vec<Artifact> = serde_json::from_value(
        serde_json::json!([{"region": "us-east-1", "image_id": "ami-0123456789abcdef0"}]),
    )
    .unwrap();
    assert!(store(&objects, &document(&Ok(made.clone())), Instant::now()).await);
    let stored = objects.json("manifest.json").unwrap();
    assert_eq!(stored["packer_version"], "1.6.6");
    assert_eq!(stored["seconds"]["build"], 1.5);
    let read: Manifest = serde_json::from_value(stored).unwrap();
    assert_eq!(read.outcome(), Some(Outcome::Succeeded(made)));

    assert!(store(&objects, &document(&failed()), Instant::now()).await);
    let read: Manifest = serde_json::from_value(objects.json("manifest.json").unwrap()).unwrap();
    assert_eq!(read.outcome(), Some(Outcome::Failed(failed().unwrap_err().failure)));
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_comes_back_gets_the_manifest() {
    let objects = Arc::new(MemoryObjects::default());
    objects.down.store(true, Ordering::SeqCst);
    let storing = {
        let objects = objects.clone();
        let until = Instant::now() + Duration::from_secs(120);
        tokio::spawn(async move { store(objects.as_ref(), &document(&failed()), until).await })
    };
    sleep(Duration::from_secs(100)).await;
    objects.down.store(false, Ordering::SeqCst);
    assert!(storing.await.unwrap());
    assert_eq!(objects.json("manifest.json").unwrap()["outcome"], "PackerFailed");
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_stays_away_is_given_up_when_nobody_waits_any_more() {
    let objects = MemoryObjects::default();
    objects.down.store(true, Ordering::SeqCst);
    let began = Instant::now();
    assert!(!store(&objects, &document(&failed()), began + Duration::from_secs(60)).await);
    let took = began.elapsed();
    assert!(took > Duration::from_secs(50) && took <= Duration::from_secs(60), "{took:?}");
    assert!(objects.refused("manifest.json") > 10);
}

#[tokio::test(start_paused = true)]
async fn what_is_new_in_the_ledger_goes_out_at_once_though_the_bucket_was_away() {
    let objects = Arc::new(MemoryObjects::default());
    let ledger = LedgerWriter::start(objects.clone(), build_id());
    objects.down.store(true, Ordering::SeqCst);
    ledger.note(&decode("1,,ui,say,==> amazon-ebs.x: Creating temporary keypair: packer_1"));
    sleep(Duration::from_secs(60)).await;
    // Until the next try it may be five seconds now.
    let tries = objects.refused("ledger.json");
    while objects.refused("ledger.json") == tries {
        sleep(Duration::from_millis(10)).await;
    }
    objects.down.store(false, Ordering::SeqCst);
    ledger.note(&decode("1,,ui,say,==> amazon-ebs.x: Adding tags to AMI (ami-0123456789abcdef0)..."));
    sleep(Duration::from_millis(1)).await;
    let stored: Ledger = serde_json::from_value(objects.json("ledger.json").unwrap()).unwrap();
    assert!(stored.provisioned_to_the_end() && stored.key_pairs.contains("packer_1"));
    assert!(ledger.finish(Duration::from_secs(1)).await);
}
