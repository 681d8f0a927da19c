//! The builtin template from request to deletion, by the `ciab` command as a person would use it.

use anyhow::{Context, Result, ensure};
use end_to_end::Scene;
use serde_json::Value;

/// Runs it, which must succeed; its document.
fn document(scene: &Scene, arguments: &[&str]) -> Result<Value> {
    let output = scene.ciab(arguments)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ciab {arguments:?} ended with {}:\n{said}", output.status);
    serde_json::from_slice(&output.stdout).with_context(|| format!("ciab {arguments:?} printed no JSON"))
}

#[test]
fn the_default_template_makes_an_image_with_an_agent() -> Result<()> {
    let scene = Scene::set()?;
    let outcome = (|| {
        let build = document(&scene, &["image", "build", "--provider", "codex", "--wait"])?;
        ensure!(build["status"] == "succeeded" && build["provider"] == "codex", "{build:#}");
        ensure!(build["template"]["source"] == "builtin://default-ec2", "{build:#}");
        let (build_id, image_id) = (text(&build, "build_id")?, text(&build, "image_id")?);

        let status = document(&scene, &["image", "status", build_id])?;
        ensure!(status["image_id"] == image_id, "{status:#}");
        let listing = document(&scene, &["image", "list", "--provider", "codex"])?;
        ensure!(listing["images"][0]["image_id"] == image_id, "{listing:#}");
        let logs = document(&scene, &["image", "logs", build_id])?;
        ensure!(logs["complete"] == true && logs.to_string().contains("node-and-agent done in"), "{logs:#}");

        document(&scene, &["image", "delete", "-y", image_id])?;
        let again = scene.ciab(&["image", "delete", "-y", image_id])?;
        ensure!(again.status.code() == Some(3), "an image that is gone is not found: {again:?}");
        scene.nothing_is_left_of(&build)
    })();
    scene.end(outcome)
}

fn text<'a>(document: &'a Value, field: &str) -> Result<&'a str> {
    document[field].as_str().with_context(|| format!("no {field} in {document:#}"))
}
