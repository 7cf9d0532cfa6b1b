"""Runs a pod of the chart as the kubelet would: its volumes, its sidecar first, its probes, its end."""

import http.client

import runtime
from runtime import Container, Talk, check, wait_until

# What the container runtime sends to PHP's image (STOPSIGNAL).
PHP_STOP_SIGNAL = "QUIT"
HANDLER = """<?php
require '/srv/php/api.php';
if (file_get_contents('php://input') === 'push') {
    (new RouterClient($_SERVER['LONGWIRE_ROUTER']))->sendAllMsg('pushed by user ' . posix_geteuid());
} else {
    echo 'echo of ', file_get_contents('php://input');
}
"""


def containers(spec):
    return spec.get("initContainers", []) + spec["containers"]


def replay(helm, image, folder, binary):
    """The first node of the default values, with a handler that pushes."""
    scripts = {"handler.php": HANDLER, "api.php": (runtime.REPOSITORY / "php-client/api.php").read_text()}
    objects = helm.render({"php": {"files": scripts}})
    [stateful] = [one for one in objects if one["kind"] == "StatefulSet"]
    spec = stateful["spec"]["template"]["spec"]
    maps = {one["metadata"]["name"]: one["data"] for one in objects if one["kind"] == "ConfigMap"}
    volumes = {volume["name"]: make_volume(volume, maps, spec, folder) for volume in spec["volumes"]}
    pod_name = f"{stateful['metadata']['name']}-0"

    [sidecar], [main] = spec["initContainers"], spec["containers"]
    php = php_container(sidecar, spec, volumes, folder).start()
    wait_until("PHP's startup probe succeeds", lambda: php.exec(sidecar["startupProbe"]["exec"]["command"])[0] == 0
               or not php.is_running())
    check(php.is_running(), php.log())
    node = node_container(main, spec, volumes, image, folder, pod_name).start()
    for name in ["startupProbe", "livenessProbe", "readinessProbe"]:
        wait_until(f"{name} succeeds\n{node.log()}", lambda: probe(main, name) == 200 or not node.is_running())
        check(node.is_running(), node.log())
    print("pod: its probes succeed")

    client = Talk(binary, "ws://127.0.0.1:8080/ws", folder)
    client.say("hello")
    client.wait_for("echo of hello")
    client.say("push")
    client.wait_for(f"pushed by user {sidecar['securityContext']['runAsUser']}")
    print("pod: an echo, and a push from PHP")

    status = node.stop(spec["terminationGracePeriodSeconds"])
    check(status == 0, f"longwire ended with {status}\n{node.log()}")
    check(php.is_running(), "PHP ended before Longwire")
    php.stop(10, PHP_STOP_SIGNAL)
    print("pod: stopped with 0, and PHP after it")


def make_volume(volume, maps, spec, folder):
    place = folder / f"pod-{volume['name']}"
    place.mkdir()
    if "configMap" in volume:
        for name, text in maps[volume["configMap"]["name"]].items():
            (place / name).write_text(text)
    else:
        check("emptyDir" in volume, f"no volume {volume}")
        # The kubelet gives it to the group, and what is made in it too.
        runtime.run("chown", f"0:{spec['securityContext']['fsGroup']}", place)
        place.chmod(0o2777)
    return place


def rights(container, spec):
    """The options of a container that its and the pod's security contexts give."""
    security = spec["securityContext"] | container["securityContext"]
    return {"user": (security["runAsUser"], security["runAsGroup"]), "groups": [security["fsGroup"]],
            "read_only": security["readOnlyRootFilesystem"], "no_new_privileges": not security["allowPrivilegeEscalation"]}


def mounts(container, volumes):
    return [(volumes[mount["name"]], mount["mountPath"], ["ro"] if mount.get("readOnly") else []) for mount in container["volumeMounts"]]


def php_container(container, spec, volumes, folder):
    root, files = runtime.php_root(folder)
    program, *arguments = container["command"]
    check(program == "php-fpm", container["command"])
    return Container("php", root, [*runtime.PHP_FPM, *arguments], folder, mounts=files + mounts(container, volumes), **rights(container, spec))


def node_container(container, spec, volumes, image, folder, pod_name):
    check("command" not in container, "the entrypoint of the image counts")
    [name] = container["env"]
    check(name["name"] == "POD_NAME" and name["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}, name)
    # Kubernetes replaces such names in arguments.
    arguments = [argument.replace("$(POD_NAME)", pod_name) for argument in container["args"]]
    return Container("longwire", image.root, image.config["Entrypoint"] + arguments, folder, env={"POD_NAME": pod_name},
                     mounts=mounts(container, volumes), **rights(container, spec))


def probe(container, name):
    """The status of a probe over HTTP, as the kubelet asks: with the pod's address as Host."""
    asked = container[name]["httpGet"]
    [port] = [port["containerPort"] for port in container["ports"] if port["name"] == asked["port"]]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=container[name].get("timeoutSeconds", 1))
    try:
        connection.request("GET", asked["path"], headers={"Host": f"10.0.0.7:{port}"})
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()
