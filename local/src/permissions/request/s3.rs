//! S3 ("Actions, resources, and condition keys for Amazon S3"), addressed by paths: `/bucket/key`.

use axum::http::Method;

use super::super::call::Check;
use super::Asked;
use crate::gateway::decoded;

/// Subresources that make another action of a request. All others are in no table.
const SUBRESOURCES: [&str; 9] =
    ["acl", "location", "uploads", "uploadId", "partNumber", "versionId", "versioning", "delete", "tagging"];

pub(super) fn checks(asked: &Asked<'_>) -> Result<Vec<Check>, String> {
    let path = decoded(asked.path.trim_start_matches('/'));
    let (bucket, key) = path.split_once('/').unwrap_or((&path, ""));
    if bucket.is_empty() {
        return Err("a request of S3 names no bucket".to_owned());
    }
    let parameters: Vec<(String, String)> = form_urlencoded::parse(asked.query.as_bytes())
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    let parameter =
        |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let has = |name: &str| parameter(name).is_some();
    let unknown = || format!("{} {}?{} of S3 is in no table", asked.method, asked.path, asked.query);
    let of_bucket = |action: &str| Check::new(format!("s3:{action}"), format!("arn:aws:s3:::{bucket}"));
    let of_object = |action: &str| Check::new(format!("s3:{action}"), format!("arn:aws:s3:::{bucket}/{key}"));
    let method = asked.method;
    if let Some(odd) = parameters.iter().find(|(name, value)| {
        value.is_empty()
            && !SUBRESOURCES.contains(&name.as_str())
            && !["prefix", "delimiter"].contains(&name.as_str())
    }) {
        return Err(format!("the subresource {} of S3 is in no table", odd.0));
    }
    if has("tagging") || has("delete") || (has("acl") && !key.is_empty()) {
        return Err(unknown());
    }
    if key.is_empty() {
        return match *method {
            Method::GET if has("acl") => Ok(vec![of_bucket("GetBucketAcl")]),
            Method::GET if has("location") => Ok(vec![of_bucket("GetBucketLocation")]),
            Method::GET if has("versioning") => Ok(vec![of_bucket("GetBucketVersioning")]),
            Method::GET if has("uploads") => Ok(vec![of_bucket("ListBucketMultipartUploads")]),
            Method::GET | Method::HEAD => Ok(vec![listing(of_bucket("ListBucket"), &parameters)]),
            // An upload by a form: the key is in it.
            Method::POST => {
                let key = form_field(asked.body, "key").ok_or("the form of an upload has no key")?;
                Ok(vec![Check::new("s3:PutObject", format!("arn:aws:s3:::{bucket}/{key}"))])
            }
            _ => Err(unknown()),
        };
    }
    match *method {
        Method::GET | Method::HEAD if has("versionId") => Ok(vec![of_object("GetObjectVersion")]),
        Method::GET | Method::HEAD if !has("uploadId") => Ok(vec![of_object("GetObject")]),
        Method::PUT => {
            let mut checks = vec![of_object("PutObject")];
            for header in ["x-amz-acl", "x-amz-tagging", "x-amz-object-lock-mode"] {
                if asked.headers.contains_key(header) {
                    return Err(format!("{header} of S3 is in no table"));
                }
            }
            if let Some(source) =
                asked.headers.get("x-amz-copy-source").and_then(|source| source.to_str().ok())
            {
                let source = decoded(source.trim_start_matches('/'));
                checks.push(Check::new("s3:GetObject", format!("arn:aws:s3:::{source}")));
            }
            Ok(checks)
        }
        Method::POST if has("uploads") || has("uploadId") => Ok(vec![of_object("PutObject")]),
        Method::DELETE if has("uploadId") => Ok(vec![of_object("AbortMultipartUpload")]),
        Method::DELETE if has("versionId") => Ok(vec![of_object("DeleteObjectVersion")]),
        Method::DELETE => Ok(vec![of_object("DeleteObject")]),
        _ => Err(unknown()),
    }
}

fn listing(check: Check, parameters: &[(String, String)]) -> Check {
    let keys = parameters.iter().filter(|(name, _)| ["prefix", "delimiter"].contains(&name.as_str()));
    keys.fold(check, |check, (name, value)| check.with(&format!("s3:{name}"), value))
}

/// What must be allowed as well for S3 to say that an object is not there (404) and not that it may not be read (403). The object's key
/// is the prefix then: "GetObject", "Permissions"; measured by others: https://github.com/ceph/ceph/pull/68577
pub(in crate::permissions) fn telling_absence(bucket: &str, key: &str) -> Check {
    Check::new("s3:ListBucket", format!("arn:aws:s3:::{bucket}")).with("s3:prefix", key)
}

/// The value of a field in a `multipart/form-data` body. Fields stand before the file.
pub(in crate::permissions) fn form_field(body: &[u8], name: &str) -> Option<String> {
    let marker = format!("name=\"{name}\"");
    let at = body.windows(marker.len()).position(|window| window.eq_ignore_ascii_case(marker.as_bytes()))?;
    let rest = &body[at + marker.len()..];
    let start = rest.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let length = rest[start..].windows(2).position(|window| window == b"\r\n")?;
    String::from_utf8(rest[start..start + length].to_vec()).ok()
}
