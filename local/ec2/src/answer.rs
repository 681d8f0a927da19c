//! EC2's Query protocol, the answer side: XML read into a tree, asked, changed, and written again.
//!
//! Pure. Never touches text it was not asked to change.

use bytes::Bytes;
use http::{Response, StatusCode, header::CONTENT_TYPE};
use xmltree::{Element, EmitterConfig, XMLNode};

/// Reads an answer; `None` if it is no XML (moto answers its own crashes with HTML).
pub(crate) fn parse(body: &[u8]) -> Option<Element> {
    Element::parse(body).ok()
}

/// Writes an answer.
pub(crate) fn write(root: &Element) -> Bytes {
    let mut text = Vec::new();
    // Writing to memory can fail only on a tree that no reader gave us; an empty body is then visibly wrong.
    if let Err(error) = root.write_with_config(&mut text, EmitterConfig::new().perform_indent(false)) {
        tracing::error!(%error, "an EC2 answer could not be written");
    }
    Bytes::from(text)
}

/// The text of the element at a path such as `["instanceState", "name"]`.
pub(crate) fn text_at(element: &Element, path: &[&str]) -> Option<String> {
    let found = path.iter().try_fold(element, |inside, name| inside.get_child(*name))?;
    found.get_text().map(|text| text.into_owned())
}

/// Sets the text of the child `name`, adding the child if there is none.
pub(crate) fn set_text(element: &mut Element, name: &str, text: &str) {
    if element.get_child(name).is_none() {
        element.children.push(XMLNode::Element(Element::new(name)));
    }
    if let Some(child) = element.get_mut_child(name) {
        child.children = vec![XMLNode::Text(text.to_owned())];
    }
}

/// The `<item>`s of the list called `list`, anywhere directly below `element`.
pub(crate) fn items<'a>(element: &'a Element, list: &str) -> Vec<&'a Element> {
    element.get_child(list).map(child_elements).unwrap_or_default()
}

/// The `<item>`s of the list called `list`, to be changed.
pub(crate) fn items_mut<'a>(element: &'a mut Element, list: &str) -> Vec<&'a mut Element> {
    let Some(list) = element.get_mut_child(list) else { return Vec::new() };
    list.children.iter_mut().filter_map(XMLNode::as_mut_element).collect()
}

/// Keeps only the `<item>`s of `list` that `keep` accepts.
pub(crate) fn retain_items(element: &mut Element, list: &str, keep: impl Fn(&Element) -> bool) {
    if let Some(list) = element.get_mut_child(list) {
        list.children.retain(|node| node.as_element().is_none_or(&keep));
    }
}

/// All child elements.
pub(crate) fn child_elements(element: &Element) -> Vec<&Element> {
    element.children.iter().filter_map(XMLNode::as_element).collect()
}

/// An element with text in it.
pub(crate) fn element(name: &str, text: &str) -> Element {
    let mut element = Element::new(name);
    element.children.push(XMLNode::Text(text.to_owned()));
    element
}

/// An HTTP answer with XML in it.
pub(crate) fn xml(status: StatusCode, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("text/xml;charset=UTF-8"));
    response
}

/// An error in EC2's form.
pub(crate) fn error(status: StatusCode, code: &str, message: &str) -> Response<Bytes> {
    let mut inner = Element::new("Error");
    inner.children.push(XMLNode::Element(element("Code", code)));
    inner.children.push(XMLNode::Element(element("Message", message)));
    let mut errors = Element::new("Errors");
    errors.children.push(XMLNode::Element(inner));
    let mut root = Element::new("Response");
    root.children.push(XMLNode::Element(errors));
    root.children.push(XMLNode::Element(element("RequestID", "ciab-local-ec2")));
    xml(status, write(&root))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_survives_reading_and_writing() {
        let text = r#"<R xmlns="http://ec2.amazonaws.com/doc/2016-11-15"><a><item><b>x &amp; y</b></item></a><e/></R>"#;
        let written = write(&parse(text.as_bytes()).unwrap());
        let again = String::from_utf8(written.to_vec()).unwrap();
        assert!(
            again.contains("<b>x &amp; y</b>") && again.contains(r#"xmlns="http://ec2.amazonaws.com"#),
            "{again}"
        );
    }

    #[test]
    fn an_error_reads_as_ec2s_own() {
        let response = error(StatusCode::BAD_REQUEST, "InvalidAMIName.Duplicate", "<taken>");
        let root = parse(response.body()).unwrap();
        let inner = root.get_child("Errors").unwrap().get_child("Error").unwrap();
        assert_eq!(text_at(inner, &["Code"]).unwrap(), "InvalidAMIName.Duplicate");
        assert_eq!(text_at(inner, &["Message"]).unwrap(), "<taken>");
    }
}
