//! Secrets in the parameter store and in Secrets Manager.

use aws_sdk_ssm::Client;
use aws_sdk_ssm::types::ParameterType;
use ciab_aws::SsmSecrets;
use ciab_core::ports::{PortError, Secrets};
use serde_json::json;

use crate::servers::Server;

#[tokio::test]
async fn a_parameter_is_read_decrypted_and_one_that_is_not_there_is_none() {
    let server = Server::moto();
    let config = server.config();
    let put = Client::new(&config).put_parameter().name("/ciab/token").value("s3cret\n");
    put.r#type(ParameterType::SecureString).send().await.unwrap();
    let secrets = SsmSecrets::new(&config);
    let secret = secrets.secret("/ciab/token").await.unwrap().unwrap();
    assert_eq!(secret.expose(), "s3cret");
    assert!(!format!("{secret:?}").contains("s3cret"));
    assert_eq!(secrets.secret("/ciab/nothing").await.unwrap(), None);
}

#[tokio::test]
async fn a_secret_of_secrets_manager_is_read_by_its_reference() {
    let server = Server::moto();
    let request =
        json!({"Name": "ciab/git-token", "SecretString": "s3cret", "ClientRequestToken": "0".repeat(36)});
    let authorization = "AWS4-HMAC-SHA256 Credential=local/20260101/us-east-1/secretsmanager/aws4_request, SignedHeaders=host, Signature=x";
    ureq::post(format!("http://{}/", server.address()))
        .header("X-Amz-Target", "secretsmanager.CreateSecret")
        .header("Content-Type", "application/x-amz-json-1.1")
        .header("Authorization", authorization)
        .send(request.to_string())
        .unwrap();
    let secrets = SsmSecrets::new(&server.config());
    let secret = secrets.secret("/aws/reference/secretsmanager/ciab/git-token").await.unwrap().unwrap();
    assert_eq!(secret.expose(), "s3cret");
}

#[tokio::test]
async fn a_service_that_is_not_there_is_not_a_secret_that_is_not_there() {
    let server = Server::moto();
    let config = server.config();
    drop(server);
    let gone = SsmSecrets::new(&config).secret("/ciab/token").await.unwrap_err();
    assert!(matches!(gone, PortError::Unavailable { .. }), "{gone:?}");
}
