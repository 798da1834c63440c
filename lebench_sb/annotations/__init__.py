"""Files beside manifests: emotion over time, dependency trees, trial lists."""
