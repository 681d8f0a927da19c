//! The EC2 API of the local stack, as plain forms over HTTP. The stack checks no signatures; it reads of them only
//! which service and region is meant.

use anyhow::{Context, Result, bail};
use ureq::Agent;
use xmltree::{Element, XMLNode};

use crate::http_client;

const REGION: &str = "us-east-1";
const VERSION: &str = "2016-11-15";

pub struct Ec2Api {
    agent: Agent,
    endpoint: String,
}

/// An answer: XML, asked for the texts of its elements.
#[derive(Debug)]
pub struct Answer(Element);

impl Ec2Api {
    pub fn new(endpoint: &str) -> Result<Self> {
        http_client::require_loopback(endpoint)?;
        Ok(Self { agent: http_client::agent(), endpoint: endpoint.trim_end_matches('/').to_owned() })
    }

    /// Calls one action.
    pub fn call(&self, action: &str, parameters: &[(&str, &str)]) -> Result<Answer> {
        let form = [("Action", action), ("Version", VERSION)].into_iter().chain(parameters.iter().copied());
        let credential = format!("local/20260101/{REGION}/ec2/aws4_request");
        let mut response = self
            .agent
            .post(format!("{}/", self.endpoint))
            .header(
                "Authorization",
                format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=local"),
            )
            .header("X-Amz-Date", "20260101T000000Z")
            .send_form(form)
            .with_context(|| format!("call EC2's {action}"))?;
        let text = response.body_mut().read_to_string().with_context(|| format!("read {action}'s answer"))?;
        if !response.status().is_success() {
            bail!("EC2's {action} answered {}: {}", response.status(), text.trim());
        }
        Answer::new(&text)
    }
}

impl Answer {
    fn new(text: &str) -> Result<Self> {
        Element::parse(text.as_bytes()).map(Self).context("read EC2's answer as XML")
    }

    /// The texts that `path` leads to below the root element, a name a step; every element that matches is followed.
    pub fn texts(&self, path: &str) -> Vec<String> {
        let mut elements = vec![&self.0];
        for name in path.split('/') {
            elements = elements
                .into_iter()
                .flat_map(|element| element.children.iter().filter_map(XMLNode::as_element))
                .filter(|child| child.name == name)
                .collect();
        }
        elements.iter().filter_map(|element| element.get_text()).map(|text| text.trim().to_owned()).collect()
    }

    /// The first text that `path` leads to.
    pub fn text(&self, path: &str) -> Option<String> {
        self.texts(path).into_iter().find(|text| !text.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_finds_every_match_and_no_deeper_one() {
        let answer = Answer::new(
            "<R xmlns='urn:x'><set><item><id>a</id><tags><item><id>no</id></item></tags></item>\
             <item><id>b</id></item></set></R>",
        )
        .unwrap();
        assert_eq!(answer.texts("set/item/id"), ["a", "b"]);
        assert_eq!(answer.text("set/none"), None);
    }

    #[test]
    fn an_answer_that_is_no_xml_is_an_error() {
        assert!(Answer::new("oops").is_err());
    }
}
