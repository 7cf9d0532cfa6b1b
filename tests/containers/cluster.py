"""Builds the image and replays docker/compose.cluster.yaml without Docker: three nodes, each with an address of its own.

  python3 tests/containers/cluster.py LONGWIRE

HAProxy and Redis of this machine stand in for their images. There is no name server: names are in /etc/hosts.
"""

import json
import pathlib
import re
import shutil
import subprocess
import sys

import composed
import runtime
from network import Network
from runtime import Container, Image, Talk, check, wait_until

NODES = ["node-1", "node-2", "node-3"]
PROGRAMS = {"redis": "redis-server", "balancer": "haproxy"}


def main():
    binary = pathlib.Path(sys.argv[1]).resolve()
    folder = runtime.enter()
    image = Image(binary, folder)
    compose, volumes = composed.load("compose.cluster.yaml", folder)
    services = compose["services"]
    believed = services["balancer"]["networks"]["default"]["ipv4_address"]
    network = Network([*NODES, "redis", "php"], folder, {"balancer": int(believed.rsplit(".", 1)[1])})
    check(network.addresses["balancer"] == believed, f"the balancer is at {believed}")

    configure = services["configure"]
    command = [composed.written(word) for word in configure["command"]]
    status, said = composed.stand_in("configure", configure, volumes, folder, command).run_to_its_end()
    check(status == 0, said)
    stand_ins = start_stand_ins(services, volumes, network, folder)
    nodes = {name: node(name, services[name], image, volumes, network, folder).start() for name in NODES}
    for name, container in nodes.items():
        health = services[name]["healthcheck"]["test"][1:]
        wait_until(f"{name} is ready", lambda: container.exec(health)[0] == 0 or not container.is_running())
        check(container.is_running(), container.log())
    print("health: 0 of three nodes")
    # It resolves names when it starts, and only then without a name server.
    proxy = balancer(services["balancer"], volumes, network, folder).start()
    stand_ins.append(proxy)
    wait_until("the balancer has nodes", lambda: reaches(binary, believed) or not proxy.is_running())
    check(proxy.is_running(), proxy.log())
    chat(binary, nodes, believed, folder)
    for name, container in nodes.items():
        if container.is_running():
            status = container.stop(35)
            check(status == 0, f"{name} ended with {status}\n{container.log()}")
    print("stop: 0")
    for container in stand_ins:
        container.stop(10, "KILL")


def program(service):
    found = shutil.which(PROGRAMS[service], path="/usr/sbin:/usr/bin:/usr/local/bin")
    check(found, f"{PROGRAMS[service]} is not installed (tests/install-deps.sh test)")
    return found


def options(name, network):
    return {"network": network.path(name)}


def start_stand_ins(services, volumes, network, folder):
    root, _ = runtime.php_root(folder)
    # All of them have this root.
    shutil.copy(network.hosts, root / "etc/hosts")
    # The image of Redis trusts its network.
    command = [program("redis"), *services["redis"]["command"][1:], "--protected-mode", "no", "--dir", "/tmp"]
    redis = composed.stand_in("redis", services["redis"], volumes, folder, command, **options("redis", network)).start()
    php = composed.php_container(services["php"], volumes, folder, **options("php", network)).start()
    return [redis, php]


def node(name, service, image, volumes, network, folder):
    environment = {key: composed.written(str(value)) for key, value in service["environment"].items()}
    mounts = [*composed.mounts(service, volumes), (network.hosts, "/etc/hosts", ["ro"])]
    return Container(name, image.root, image.config["Entrypoint"] + service["command"], folder, user=image.user, env=environment,
                     mounts=mounts, read_only=service["read_only"], no_new_privileges=True, files=service["ulimits"]["nofile"],
                     **options(name, network))


def balancer(service, volumes, network, folder):
    command = [program("balancer"), "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]
    return composed.stand_in("balancer", service, volumes, folder, command, **options("balancer", network))


class Person:
    """A page of the chat."""

    def __init__(self, binary, address, folder, name):
        self._talk = Talk(binary, f"ws://{address}:8080/ws", folder)
        self._talk.wait_for('"is":"hello"')
        self.node = re.search(r'"node":"([^"]+)"', self._talk.heard())[1]
        self._say({"do": "enter", "name": name})
        self._talk.wait_for(f'"is":"moved","name":"{name}"')

    def _say(self, frame):
        self._talk.say(json.dumps(frame))

    def says(self, text):
        self._say({"do": "say", "text": text})

    def hears(self, text):
        self._talk.wait_for(f'"text":"{text}"')


def chat(binary, nodes, address, folder):
    """People on different nodes hear each other, also when one of the nodes has been killed."""
    people = {}
    for name in ["Ada", "Bob", "Cleo"]:
        person = Person(binary, address, folder, name)
        people.setdefault(person.node, person)
    check(len(people) > 1, f"everybody is on one node: {list(people)}")
    first, second = list(people.values())[:2]
    first.says("hello over Redis")
    second.hears("hello over Redis")
    print(f"chat: from {first.node} to {second.node}")
    nodes[second.node].stop(5, "KILL")
    late = Person(binary, address, folder, "Dora")
    check(late.node != second.node, f"{late.node} was killed")
    late.says("still here")
    first.hears("still here")
    print(f"chat: {second.node} was killed, and {late.node} took the next client")


def reaches(binary, address):
    command = [binary, "connect", "--quiet", "--send", "{}", f"ws://{address}:8080/ws"]
    return subprocess.run(command, capture_output=True, timeout=runtime.PATIENCE_S).returncode == 0


main()
