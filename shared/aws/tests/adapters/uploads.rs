//! A presigned form, posted as a browser or curl would post it.

use aws_sdk_s3::Client;
use ciab_aws::{S3Objects, S3Uploads};
use ciab_core::ports::{ObjectStore, Uploads};
use ciab_core::upload_template::Announced;

use crate::servers::Server;

#[tokio::test]
async fn what_is_posted_with_the_form_is_the_object_that_was_announced() {
    let server = Server::moto();
    let config = server.config();
    let settings = aws_sdk_s3::config::Builder::from(&config).force_path_style(true).build();
    Client::from_conf(settings).create_bucket().bucket("ciab-test").send().await.unwrap();
    let now = jiff::Timestamp::now();
    let announced = Announced {
        key: "templates/uploads/2cf2",
        sha256: "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
        size: 5,
        now,
        until: now + jiff::SignedDuration::from_mins(15),
    };
    let post = S3Uploads::new(&config, "ciab-test").presigned_post(&announced).await.unwrap();
    assert_eq!(post.url, format!("http://{}/ciab-test", server.address()));

    let mut body = String::new();
    for (name, value) in &post.fields {
        body += &format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    }
    body += "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"template.tar.gz\"\r\n\r\nhello\r\n--x--\r\n";
    ureq::post(&post.url).header("Content-Type", "multipart/form-data; boundary=x").send(body).unwrap();
    let objects = S3Objects::new(&config, "ciab-test");
    assert_eq!(objects.get("templates/uploads/2cf2").await.unwrap(), Some(b"hello".to_vec()));
}
