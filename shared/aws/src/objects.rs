//! The stack's bucket in S3.
//!
//! Must never set a key's encryption or class by itself: the bucket's defaults do.

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use ciab_core::ports::{ObjectStore, PortError};

use crate::failure::{Call, answered};

const SERVICE: &str = "s3";

/// Bytes of an object that is read: whoever reads has it in memory.
const LARGEST: i64 = 64 * 1024 * 1024;

const fn call(operation: &'static str) -> Call {
    Call { service: SERVICE, operation }
}

/// One bucket.
#[derive(Debug, Clone)]
pub struct S3Objects {
    client: Client,
    bucket: String,
}

impl S3Objects {
    /// The bucket with this name.
    pub fn new(config: &SdkConfig, bucket: impl Into<String>) -> Self {
        // A host of its own per bucket only exists in AWS.
        let settings = aws_sdk_s3::config::Builder::from(config)
            .force_path_style(config.endpoint_url().is_some())
            .build();
        Self { client: Client::from_conf(settings), bucket: bucket.into() }
    }
}

#[async_trait]
impl ObjectStore for S3Objects {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, PortError> {
        let call = call("GetObject");
        match self.client.get_object().bucket(&self.bucket).key(key).send().await {
            Ok(object) => {
                if object.content_length.is_some_and(|length| length > LARGEST) {
                    return Err(call.unreadable(format!("{key} has more than {LARGEST} bytes")));
                }
                let body = object.body.collect().await.map_err(|error| call.unavailable(error))?;
                Ok(Some(body.to_vec()))
            }
            Err(error) if answered(&error, &["NoSuchKey"]) => Ok(None),
            Err(error) => Err(call.failed(error)),
        }
    }

    async fn put(&self, key: &str, body: Vec<u8>) -> Result<(), PortError> {
        self.client
            .put_object()
            .bucket(&self.bucket)
            .key(key)
            .body(ByteStream::from(body))
            .send()
            .await
            .map_err(|error| call("PutObject").failed(error))?;
        Ok(())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, PortError> {
        let call = call("ListObjectsV2");
        let mut pages =
            self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).into_paginator().send();
        let mut keys = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| call.failed(error))?;
            keys.extend(page.contents.into_iter().flatten().filter_map(|object| object.key));
        }
        Ok(keys)
    }

    async fn ready(&self) -> Result<(), PortError> {
        self.client
            .head_bucket()
            .bucket(&self.bucket)
            .send()
            .await
            .map_err(|error| call("HeadBucket").failed(error))?;
        Ok(())
    }
}
