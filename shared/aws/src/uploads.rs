//! Presigned POSTs to the stack's bucket: a form that lets whoever has it write one object of announced size and digest.
//!
//! The SDK signs requests, and a POST policy is signed otherwise
//! (https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-authentication-HTTPPOST.html). Must never sign a policy that leaves
//! open what is written: key, length and checksum stand in each.

use std::collections::BTreeMap;
use std::time::SystemTime;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_sigv4::sign::v4::{calculate_signature, generate_signing_key};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ciab_core::ports::{PortError, Uploads};
use ciab_core::upload_template::{Announced, PresignedPost};
use serde_json::{Value, json};

use crate::failure::Call;

const CALL: Call = Call { service: "s3", operation: "PostObject" };

/// Uploads to one bucket.
#[derive(Debug, Clone)]
pub struct S3Uploads {
    config: SdkConfig,
    bucket: String,
}

impl S3Uploads {
    /// Uploads to the bucket with this name.
    pub fn new(config: &SdkConfig, bucket: impl Into<String>) -> Self {
        Self { config: config.clone(), bucket: bucket.into() }
    }

    fn url(&self, region: &str) -> String {
        match self.config.endpoint_url() {
            Some(endpoint) => format!("{}/{}", endpoint.trim_end_matches('/'), self.bucket),
            None if region.starts_with("cn-") => {
                format!("https://{}.s3.{region}.amazonaws.com.cn/", self.bucket)
            }
            None => format!("https://{}.s3.{region}.amazonaws.com/", self.bucket),
        }
    }
}

#[async_trait]
impl Uploads for S3Uploads {
    async fn presigned_post(&self, announced: &Announced<'_>) -> Result<PresignedPost, PortError> {
        let region = self.config.region().ok_or_else(|| CALL.unreadable("no region is set"))?.as_ref();
        let provider =
            self.config.credentials_provider().ok_or_else(|| CALL.unreadable("no credentials are set"))?;
        let credentials = provider.provide_credentials().await.map_err(|error| CALL.unavailable(error))?;
        let fields = fields(&self.bucket, region, &credentials, announced)?;
        Ok(PresignedPost { url: self.url(region), fields })
    }
}

fn fields(
    bucket: &str,
    region: &str,
    credentials: &Credentials,
    announced: &Announced<'_>,
) -> Result<BTreeMap<String, String>, PortError> {
    let day = announced.now.strftime("%Y%m%d").to_string();
    let mut fields = BTreeMap::from([
        ("key", announced.key.to_owned()),
        ("x-amz-algorithm", "AWS4-HMAC-SHA256".to_owned()),
        ("x-amz-checksum-sha256", base64_of_hex(announced.sha256)?),
        ("x-amz-credential", format!("{}/{day}/{region}/s3/aws4_request", credentials.access_key_id())),
        ("x-amz-date", announced.now.strftime("%Y%m%dT%H%M%SZ").to_string()),
    ]);
    if let Some(token) = credentials.session_token() {
        fields.insert("x-amz-security-token", token.to_owned());
    }
    let mut conditions =
        vec![json!({"bucket": bucket}), json!(["content-length-range", announced.size, announced.size])];
    conditions.extend(
        fields
            .iter()
            .map(|(name, value)| Value::Object([((*name).to_owned(), json!(value))].into_iter().collect())),
    );
    let expiration = announced.until.strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string();
    let policy = json!({"expiration": expiration, "conditions": conditions});
    let policy = BASE64_STANDARD.encode(policy.to_string());
    let time = SystemTime::try_from(announced.now).map_err(|error| CALL.unreadable(error.to_string()))?;
    let key = generate_signing_key(credentials.secret_access_key(), time, region, "s3");
    fields.insert("x-amz-signature", calculate_signature(key, policy.as_bytes()));
    fields.insert("policy", policy);
    Ok(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn base64_of_hex(hex: &str) -> Result<String, PortError> {
    let byte =
        |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let bytes: Option<Vec<u8>> = hex.as_bytes().chunks(2).map(byte).collect();
    bytes
        .map(|bytes| BASE64_STANDARD.encode(bytes))
        .ok_or_else(|| CALL.unreadable("a digest that is no digest"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(token: Option<&str>) -> (BTreeMap<String, String>, Value) {
        let credentials = Credentials::new(
            "AKIAIOSFODNN7EXAMPLE",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            token.map(str::to_owned),
            None,
            "test",
        );
        let announced = Announced {
            key: "templates/uploads/ab",
            sha256: "00ff",
            size: 12,
            now: "2026-03-25T14:30:00Z".parse().unwrap(),
            until: "2026-03-25T14:45:00Z".parse().unwrap(),
        };
        let fields = fields("bucket-1", "us-east-1", &credentials, &announced).unwrap();
        let policy = BASE64_STANDARD.decode(&fields["policy"]).unwrap();
        (fields, serde_json::from_slice(&policy).unwrap())
    }

    #[test]
    fn the_policy_names_bucket_key_length_checksum_and_every_other_field() {
        let (fields, policy) = signed(Some("session"));
        assert_eq!(policy["expiration"], "2026-03-25T14:45:00.000Z");
        let conditions = policy["conditions"].as_array().unwrap();
        assert!(conditions.contains(&json!({"bucket": "bucket-1"})));
        assert!(conditions.contains(&json!(["content-length-range", 12, 12])));
        for (name, value) in &fields {
            let named = conditions.contains(&json!({name: value}));
            assert_eq!(named, name != "policy" && name != "x-amz-signature", "{name}");
        }
        assert_eq!(fields["x-amz-checksum-sha256"], "AP8=");
        assert_eq!(fields["x-amz-security-token"], "session");
    }

    /// The key and signature of AWS's own example, whose policy is other text:
    /// https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-post-example.html
    #[test]
    fn a_policy_is_signed_as_in_awss_example() {
        let policy = concat!(
            "eyAiZXhwaXJhdGlvbiI6ICIyMDE1LTEyLTMwVDEyOjAwOjAwLjAwMFoiLA0KICAiY29uZGl0aW9ucyI6IFsNCiAgICB7ImJ1Y2tldCI6ICJzaWd2NGV4YW",
            "1wbGVidWNrZXQifSwNCiAgICBbInN0YXJ0cy13aXRoIiwgIiRrZXkiLCAidXNlci91c2VyMS8iXSwNCiAgICB7ImFjbCI6ICJwdWJsaWMtcmVhZCJ9LA0K",
            "ICAgIHsic3VjY2Vzc19hY3Rpb25fcmVkaXJlY3QiOiAiaHR0cDovL3NpZ3Y0ZXhhbXBsZWJ1Y2tldC5zMy5hbWF6b25hd3MuY29tL3N1Y2Nlc3NmdWxfdX",
            "Bsb2FkLmh0bWwifSwNCiAgICBbInN0YXJ0cy13aXRoIiwgIiRDb250ZW50LVR5cGUiLCAiaW1hZ2UvIl0sDQogICAgeyJ4LWFtei1tZXRhLXV1aWQiOiAi",
            "MTQzNjUxMjM2NTEyNzQifSwNCiAgICB7IngtYW16LXNlcnZlci1zaWRlLWVuY3J5cHRpb24iOiAiQUVTMjU2In0sDQogICAgWyJzdGFydHMtd2l0aCIsIC",
            "IkeC1hbXotbWV0YS10YWciLCAiIl0sDQoNCiAgICB7IngtYW16LWNyZWRlbnRpYWwiOiAiQUtJQUlPU0ZPRE5ON0VYQU1QTEUvMjAxNTEyMjkvdXMtZWFz",
            "dC0xL3MzL2F3czRfcmVxdWVzdCJ9LA0KICAgIHsieC1hbXotYWxnb3JpdGhtIjogIkFXUzQtSE1BQy1TSEEyNTYifSwNCiAgICB7IngtYW16LWRhdGUiOi",
            "AiMjAxNTEyMjlUMDAwMDAwWiIgfQ0KICBdDQp9"
        );
        let day: jiff::Timestamp = "2015-12-29T00:00:00Z".parse().unwrap();
        let day = SystemTime::try_from(day).unwrap();
        let key = generate_signing_key("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", day, "us-east-1", "s3");
        let expected = "8afdbf4008c03f22c2cd3cdb72e4afbb1f6a588f3255ac628749a66d7f09699e";
        assert_eq!(calculate_signature(key, policy.as_bytes()), expected);
    }

    #[test]
    fn nothing_secret_stands_in_the_form() {
        let (fields, _) = signed(None);
        assert!(fields.values().all(|value| !value.contains("wJalrXUtnFEMI")));
        assert!(!fields.contains_key("x-amz-security-token"));
    }
}
