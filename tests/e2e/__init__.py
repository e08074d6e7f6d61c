"""Tests on the Kubernetes cluster that KUBECONFIG names."""
