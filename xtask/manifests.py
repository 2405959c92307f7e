"""Looks at rendered manifests for `cargo xtask deploy-check`: python manifests.py VERSION[,VERSION…] FILE…

Against the schemas of these Kubernetes versions, strictly; custom resources against the types of their makers; and what no schema
says: that names lead somewhere, that nobody is root, that pods have probes and budgets. Prints what is wrong, one thing a line.
"""

import sys

import kubernetes_validate
import pydantic
import yaml
from cloudcoil.models.keda.v1alpha1 import ScaledObject
from cloudcoil.models.prometheus_operator.v1 import PodMonitor, PrometheusRule

# Kinds that are no part of Kubernetes, with the type that knows their fields.
CUSTOM = {
    ("keda.sh/v1alpha1", "ScaledObject"): ScaledObject,
    ("monitoring.coreos.com/v1", "PodMonitor"): PodMonitor,
    ("monitoring.coreos.com/v1", "PrometheusRule"): PrometheusRule,
}
# Kinds whose makers publish no types in a registry: these fields and no others, each with what it may be.
BY_HAND = {
    ("traefik.io/v1alpha1", "TLSOption"): {
        "minVersion": lambda value: value in ("VersionTLS12", "VersionTLS13"),
        "cipherSuites": lambda value: all(cipher.startswith("TLS_ECDHE_") for cipher in value),
        "sniStrict": lambda value: isinstance(value, bool),
    }
}
# Made by people or by scripts, and in no overlay.
OUTSIDE = {("Secret", "longshore"), ("Secret", "longshore-stores"), ("Secret", "longshore-backup"), ("ConfigMap", "longshore-backup")}
WORKLOADS = ("Deployment", "StatefulSet", "Job")


def words(path):
    return ".".join(str(part) for part in path)


def unknown(given, known, path=()):
    """Fields that a type did not keep: it does not know them."""
    if isinstance(given, dict) and isinstance(known, dict):
        for key, value in given.items():
            if key not in known:
                yield f"{words((*path, key))} is no field of it"
            else:
                yield from unknown(value, known[key], (*path, key))
    elif isinstance(given, list) and isinstance(known, list):
        for at, (one, other) in enumerate(zip(given, known)):
            yield from unknown(one, other, (*path, at))


def schema(doc, versions):
    key = (doc["apiVersion"], doc["kind"])
    if key in CUSTOM:
        try:
            kept = CUSTOM[key].model_validate(doc).model_dump(by_alias=True, exclude_unset=True, mode="json")
        except pydantic.ValidationError as error:
            yield from (f"{words(one['loc'])}: {one['msg']} ({one['input']!r})" for one in error.errors())
        else:
            yield from unknown(doc, kept)
    elif key in BY_HAND:
        for field, value in doc["spec"].items():
            if field not in BY_HAND[key] or not BY_HAND[key][field](value):
                yield f"spec.{field} is not known, or must not be {value!r}"
    else:
        for version in versions:
            try:
                kubernetes_validate.validate(doc, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                yield f"Kubernetes {version}: {words(error.path)}: {error.message}"
            except kubernetes_validate.SchemaNotFoundError as error:
                yield f"Kubernetes {version}: {error}"


def pod_of(doc):
    return doc["spec"]["template"]["spec"]


def pod_labels(doc):
    return doc["spec"]["template"]["metadata"].get("labels", {})


def hardened(doc):
    pod = pod_of(doc)
    user = pod.get("securityContext", {})
    if not user.get("runAsNonRoot") or not user.get("runAsUser"):
        yield "may run as root: runAsNonRoot and a numeric runAsUser"
    if user.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "has no seccomp profile"
    if pod.get("automountServiceAccountToken") is not False:
        yield "gets a token for the cluster"
    for container in pod["containers"]:
        own = container.get("securityContext", {})
        if own.get("allowPrivilegeEscalation") is not False or not own.get("readOnlyRootFilesystem"):
            yield "can become more than it is, or write to its image"
        if own.get("capabilities", {}).get("drop") != ["ALL"]:
            yield "keeps capabilities"
        resources = container.get("resources", {})
        memory = [resources.get(which, {}).get("memory") for which in ("requests", "limits")]
        if not memory[0] or memory[0] != memory[1]:
            yield f"memory: requested {memory[0]}, limited to {memory[1]}"
        if "cpu" in resources.get("limits", {}):
            yield "has a limit of CPU"
        if ":" not in container["image"] or container["image"].endswith(":latest"):
            yield f"image {container['image']} is any version"
        if doc["kind"] == "Deployment":
            yield from (f"has no {probe}" for probe in ("startupProbe", "livenessProbe", "readinessProbe") if probe not in container)
            ports = {port["name"] for port in container.get("ports", [])}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                port = container.get(probe, {}).get("httpGet", {}).get("port")
                if port is not None and port not in ports:
                    yield f"{probe} asks port {port}, which is none of {sorted(ports)}"
    if doc["kind"] == "Deployment" and len(pod.get("topologySpreadConstraints", [])) < 2:
        yield "is not spread over zones and hosts"


def named_by(doc):
    """What a workload mounts and reads, as (kind, name)."""
    pod = pod_of(doc)
    for volume in pod.get("volumes", []):
        if "configMap" in volume:
            yield "ConfigMap", volume["configMap"]["name"]
        if "secret" in volume:
            yield "Secret", volume["secret"]["secretName"]
    for container in pod["containers"]:
        for source in container.get("envFrom", []):
            for kind, field in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
                if field in source:
                    yield kind, source[field]["name"]
    if pod.get("serviceAccountName"):
        yield "ServiceAccount", pod["serviceAccountName"]


def targets_of(doc):
    if doc["kind"] in ("ScaledObject", "HorizontalPodAutoscaler"):
        yield "Deployment", doc["spec"]["scaleTargetRef"]["name"]
    if doc["kind"] == "Ingress":
        for rule in doc["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                yield "Service", path["backend"]["service"]["name"]


def connected(docs):
    """Names that lead nowhere, selectors that select nothing."""
    there = {(doc["kind"], doc["metadata"]["name"]): doc for doc in docs}
    workloads = [doc for doc in docs if doc["kind"] in WORKLOADS]
    for doc in docs:
        who = f"{doc['kind']}/{doc['metadata']['name']}"
        names = [*targets_of(doc), *(named_by(doc) if doc["kind"] in WORKLOADS else [])]
        for kind, name in names:
            if (kind, name) not in there and (kind, name) not in OUTSIDE:
                yield who, f"names {kind}/{name}, which is not there"
            elif doc["kind"] in ("ScaledObject", "HorizontalPodAutoscaler") and "replicas" in there[kind, name]["spec"]:
                yield who, f"scales {kind}/{name}, which has a number of replicas of its own"
        selector = doc["spec"].get("selector", {}) if doc["kind"] in ("Service", "PodDisruptionBudget") else None
        wanted = selector.get("matchLabels", selector) if selector else None
        # Where only an address and its doors are, the pods are in other overlays.
        if wanted and workloads and not any(wanted.items() <= pod_labels(each).items() for each in workloads):
            yield who, f"selects no pod: {wanted}"
    budgets = [doc["spec"]["selector"]["matchLabels"] for doc in docs if doc["kind"] == "PodDisruptionBudget"]
    for doc in workloads:
        if doc["kind"] == "Deployment" and not any(budget.items() <= pod_labels(doc).items() for budget in budgets):
            yield f"Deployment/{doc['metadata']['name']}", "has no PodDisruptionBudget"


def main():
    versions, wrong = sys.argv[1].split(","), 0
    for file in sys.argv[2:]:
        with open(file, encoding="utf-8") as text:
            docs = [doc for doc in yaml.safe_load_all(text) if doc]
        found = [(f"{doc['kind']}/{doc['metadata']['name']}", one) for doc in docs for one in schema(doc, versions)]
        found += [(f"{doc['kind']}/{doc['metadata']['name']}", one) for doc in docs if doc["kind"] in WORKLOADS for one in hardened(doc)]
        found += connected(docs)
        for who, what in found:
            print(f"{file}: {who}: {what}")
        wrong += len(found)
        print(f"{file}: {len(docs)} objects, {len(found)} wrong")
    sys.exit(1 if wrong else 0)


main()
