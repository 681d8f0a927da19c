//! Whether a build that was harmed ended right.

use serde_json::Value;

use super::End;

/// An AMI as EC2 shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) state: String,
    pub(super) build_id: String,
    pub(super) snapshots: Vec<String>,
}

/// What is wrong, in words; nothing if all is right. `left` is what EC2 holds beyond what it held before, `image` the AMI
/// that the build names.
pub(super) fn wrong(build: &Value, image: Option<&Image>, left: &[String], end: End) -> Vec<String> {
    let mut wrong = Vec::new();
    let text = |field: &str| build[field].as_str().unwrap_or_default();
    let status = text("status");
    let wanted: &[&str] = match end {
        End::Succeeded => &["succeeded"],
        End::Failed | End::Cancelled => &["failed"],
        End::Either => &["succeeded", "failed"],
    };
    if !wanted.contains(&status) {
        wrong.push(format!("it is {status}, not {} ({})", wanted.join(" or "), build["error"]));
    }
    if end == End::Cancelled && (text("error"), text("phase")) != ("cancelled", "cancelled") {
        wrong.push(format!("it is not told as cancelled: {} {}", build["error"], build["phase"]));
    }
    let mut allowed = Vec::new();
    if status == "succeeded" {
        match image {
            None => wrong.push(format!("it succeeded, and EC2 has no {}", build["image_id"])),
            Some(image) => {
                if image.state != "available" || image.build_id != text("build_id") {
                    wrong.push(format!("it succeeded with {image:?}"));
                }
                allowed.push(format!("image {}", text("image_id")));
                allowed.extend(image.snapshots.iter().map(|id| format!("snapshot {id}")));
            }
        }
        if !build["error"].is_null() {
            wrong.push(format!("it succeeded with the error {}", build["error"]));
        }
    } else if !build["image_id"].is_null() || text("error").is_empty() {
        wrong.push(format!("it failed with {} and the error {}", build["image_id"], build["error"]));
    }
    let beyond: Vec<&str> = left.iter().filter(|item| !allowed.contains(item)).map(String::as_str).collect();
    if !beyond.is_empty() {
        wrong.push(format!("left: {}", beyond.join(", ")));
    }
    let missing: Vec<&str> = allowed.iter().filter(|item| !left.contains(item)).map(String::as_str).collect();
    if !missing.is_empty() {
        wrong.push(format!("missing: {}", missing.join(", ")));
    }
    let (found, removed) = (&build["leftovers"]["found"], &build["leftovers"]["removed"]);
    if !found.is_object() || found != removed {
        wrong.push(format!("its proof does not hold: {}", build["leftovers"]));
    }
    wrong
}

/// What of `left` is no part of the AMI that the build succeeded with.
pub(super) fn leaked(build: &Value, image: Option<&Image>, left: &[String]) -> Vec<String> {
    let kept = |item: &String| {
        build["status"] == "succeeded"
            && image.is_some_and(|image| {
                *item == format!("image {}", build["image_id"].as_str().unwrap_or_default())
                    || image.snapshots.iter().any(|id| *item == format!("snapshot {id}"))
            })
    };
    left.iter().filter(|item| !kept(item)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn succeeded() -> (Value, Image, Vec<String>) {
        let build = json!({
            "build_id": "b", "status": "succeeded", "image_id": "ami-1", "error": null,
            "leftovers": {"found": {"instances": ["i-1"]}, "removed": {"instances": ["i-1"]}},
        });
        let image =
            Image { state: "available".into(), build_id: "b".into(), snapshots: vec!["snap-1".into()] };
        (build, image, vec!["image ami-1".into(), "snapshot snap-1".into()])
    }

    fn failed() -> Value {
        json!({
            "build_id": "b", "status": "failed", "image_id": null, "error": "gone", "phase": "failed",
            "leftovers": {"found": {}, "removed": {}},
        })
    }

    #[test]
    fn what_is_true_and_clean_is_right() {
        let (build, image, left) = succeeded();
        assert!(wrong(&build, Some(&image), &left, End::Succeeded).is_empty());
        assert!(wrong(&build, Some(&image), &left, End::Either).is_empty());
        assert!(leaked(&build, Some(&image), &left).is_empty());
        assert!(wrong(&failed(), None, &[], End::Failed).is_empty());
    }

    #[test]
    fn a_success_without_its_image_is_a_lie() {
        let (build, image, left) = succeeded();
        let complaint =
            |image: Option<&Image>, left: &[String]| wrong(&build, image, left, End::Either).join("; ");
        assert!(complaint(None, &[]).contains("EC2 has no"));
        let pending = Image { state: "pending".into(), ..image.clone() };
        assert!(complaint(Some(&pending), &left).contains("pending"));
        let anothers = Image { build_id: "c".into(), ..image.clone() };
        assert!(complaint(Some(&anothers), &left).contains("\"c\""));
        assert!(complaint(Some(&image), &left[..1]).contains("missing: snapshot snap-1"));
    }

    #[test]
    fn anything_left_is_a_leak() {
        let (build, image, mut left) = succeeded();
        left.push("instance i-2".into());
        assert_eq!(wrong(&build, Some(&image), &left, End::Either), ["left: instance i-2"]);
        assert_eq!(leaked(&build, Some(&image), &left), ["instance i-2"]);
        let left = ["image ami-1".to_owned()];
        assert_eq!(wrong(&failed(), Some(&image), &left, End::Failed), ["left: image ami-1"]);
        assert_eq!(leaked(&failed(), Some(&image), &left), left);
    }

    #[test]
    fn the_wrong_end_and_a_broken_proof_are_told() {
        assert!(wrong(&failed(), None, &[], End::Succeeded)[0].contains("it is failed, not succeeded"));
        assert!(wrong(&failed(), None, &[], End::Cancelled)[0].contains("not told as cancelled"));
        let mut build = failed();
        build["leftovers"]["found"] = json!({"volumes": ["vol-1"]});
        assert!(wrong(&build, None, &[], End::Failed)[0].contains("proof"));
        build = failed();
        build["error"] = Value::Null;
        assert!(wrong(&build, None, &[], End::Failed)[0].contains("the error null"));
    }
}
