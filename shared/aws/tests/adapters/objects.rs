//! The bucket.

use aws_sdk_s3::Client;
use ciab_aws::S3Objects;
use ciab_core::ports::{ObjectStore, PortError};
use futures::{StreamExt, stream};

use crate::servers::Server;

async fn bucket(server: &Server) -> S3Objects {
    let config = server.config();
    let settings = aws_sdk_s3::config::Builder::from(&config).force_path_style(true).build();
    Client::from_conf(settings).create_bucket().bucket("ciab-test").send().await.unwrap();
    S3Objects::new(&config, "ciab-test")
}

#[tokio::test]
async fn what_was_put_is_got_and_what_was_not_is_none() {
    let server = Server::moto();
    let objects = bucket(&server).await;
    objects.ready().await.unwrap();
    assert_eq!(objects.get("builds/1/input.json").await.unwrap(), None);
    objects.put("builds/1/input.json", b"{}".to_vec()).await.unwrap();
    objects.put("builds/1/input.json", b"{\"a\":1}".to_vec()).await.unwrap();
    assert_eq!(objects.get("builds/1/input.json").await.unwrap(), Some(b"{\"a\":1}".to_vec()));
}

#[tokio::test]
async fn a_listing_goes_on_past_its_first_page_in_ascending_order() {
    let server = Server::moto();
    let objects = bucket(&server).await;
    let keys: Vec<String> = (0..1005).map(|line| format!("builds/1/log/{line:010}.ndjson")).collect();
    stream::iter(&keys)
        .for_each_concurrent(8, async |key| objects.put(key, b"x".to_vec()).await.unwrap())
        .await;
    objects.put("builds/10/log/0000000000.ndjson", b"x".to_vec()).await.unwrap();
    assert_eq!(objects.list("builds/1/log/").await.unwrap(), keys);
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_a_refusal_and_a_service_that_is_not_there_is_not() {
    let server = Server::moto();
    let elsewhere = S3Objects::new(&server.config(), "ciab-nowhere");
    let refused = elsewhere.get("key").await.unwrap_err();
    assert!(matches!(&refused, PortError::Refused { code, .. } if code == "NoSuchBucket"), "{refused:?}");

    let config = server.config();
    drop(server);
    let gone = S3Objects::new(&config, "ciab-test").get("key").await.unwrap_err();
    assert!(matches!(gone, PortError::Unavailable { .. }), "{gone:?}");
}
