"""Checks the Helm chart and the manifests that are made from it; `--renew` makes them anew.

Helm itself lints and renders the chart, and the schemas of Kubernetes judge what comes out, fields
that they do not know included. `deploy/kubernetes` is the chart with other values.
"""

import pathlib
import sys

import helm_python as helm
import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/helm/reflex-edge"
MANIFESTS = ROOT / "deploy/kubernetes"
# The oldest with what the chart needs, and the newest that the package knows.
VERSIONS = ["1.35", "1.37"]

# The manifests of `deploy/kubernetes`, and the values of the chart that they are made with.
PLAIN = {
    "proxy.yaml": {},
    "beside-envoy.yaml": {"envoy": {"enabled": True}},
}
# More values, so that each branch of the templates is seen.
OTHERS = [
    {
        "replicas": 3,
        "image": {"digest": "sha256:" + "0" * 64},
        "adminTokenSecret": "reflex-admin",
        "imagePullSecrets": [{"name": "registry"}],
        "persistence": {"enabled": False},
        "podDisruptionBudget": {"enabled": False},
        "networkPolicy": {"enabled": False},
        "service": {"type": "LoadBalancer", "port": 8080},
        "nodeSelector": {"disk": "nvme"},
        "tolerations": [{"key": "llm", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "podAnnotations": {"a": "b"},
        "config": "ttl_seconds = 60\n[[group]]\nname = \"g\"\ntenants = []\n",
    },
    {
        "envoy": {"enabled": True, "concurrency": 4},
        "upstream": "https://provider.example.com",
        "adminTokenSecret": "reflex-admin",
        "persistence": {"storageClass": "fast", "size": "20Gi"},
        "networkPolicy": {
            "clients": [{"podSelector": {"matchLabels": {"app": "agent"}}}],
            "admin": [{"namespaceSelector": {"matchLabels": {"team": "ops"}}}],
        },
    },
]
# Values that the chart refuses.
REFUSED = [
    {"upstream": "api.openai.com"},
    {"envoy": {"enabled": True}, "upstream": "http://provider"},
    {"envoy": {"enabled": True}, "upstream": "https://provider/path"},
    {"replica": 2},
    {"image": {"digest": "sha256:1"}},
]
# What of `envoy/envoy.yaml` is elsewhere in a pod: each stands there.
ENVOY = [
    ("address: 127.0.0.1, port_value: 10000", "address: 0.0.0.0, port_value: 10000"),
    ("filename: target/wasm/", "filename: /reflex/usr/share/reflex-edge/"),
    ("path: /tmp/reflex-edge.sock", "path: /run/reflex/edge.sock"),
    ("https://api.openai.com", 'https://{{ include "reflex-edge.host" . }}'),
    (": api.openai.com", ': {{ include "reflex-edge.host" . }}'),
]
HEAD = """\
# Made from deploy/helm/reflex-edge by tests/deploy/manifests.py --renew; change the chart.
# kubectl apply -n llm -f deploy/kubernetes/{name}
"""


def envoy():
    text = (ROOT / "envoy/envoy.yaml").read_text()
    assert "{{" not in text, "a template"
    for old, new in ENVOY:
        assert old in text, old
        text = text.replace(old, new)
    # The comment at its beginning tells how to run it elsewhere.
    return "# envoy/envoy.yaml with a pod's addresses.\n" + text[text.index("\nadmin:") :]


def render(chart, values):
    rendered = chart.render(values, name="reflex-edge", namespace="llm")
    texts = [text.strip("\n") for _, text in sorted(rendered.items()) if text.strip()]
    return "\n---\n".join(text.removeprefix("---\n") for text in texts) + "\n"


def check(text):
    count = 0
    for document in yaml.safe_load_all(text):
        if document is None:
            continue
        for version in VERSIONS:
            kubernetes_validate.validate(document, version, strict=True)
        count += 1
    assert count >= 3, text
    return count


def keep(path, text, renew):
    if renew:
        path.write_text(text)
    elif path.read_text() != text:
        sys.exit(f"{path.relative_to(ROOT)} is old: run tests/deploy/manifests.py --renew")


def main():
    renew = sys.argv[1:] == ["--renew"]
    keep(CHART / "files/envoy.yaml", envoy(), renew)
    findings = helm.lint(str(CHART))
    print("lint:", findings)
    with helm.Chart.load(str(CHART)) as chart:
        resources = 0
        for name, values in PLAIN.items():
            text = render(chart, values)
            resources += check(text)
            keep(MANIFESTS / name, HEAD.format(name=name) + text, renew)
        for values in OTHERS:
            resources += check(render(chart, values))
        for values in REFUSED:
            try:
                render(chart, values)
            except helm.HelmError:
                continue
            sys.exit(f"not refused: {values}")
    print(resources, "resources")


main()
