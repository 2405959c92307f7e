"""What no schema says of the compose files, for `cargo xtask deploy-check`: python compose.py FOLDER FILE… (the later over the first).

Names of secrets, configs, networks and volumes lead somewhere, files are there, everything has limits and comes back after a
crash, and what is scaled has neither a name nor a port of its own.
"""

import pathlib
import sys

import yaml

SCALED = ("api", "worker", "scheduler")
# Those that end.
ONCE = ("migrate", "smoke")


def merged(files):
    whole = {}
    for file in files:
        for section, entries in yaml.safe_load(pathlib.Path(file).read_text()).items():
            if isinstance(entries, dict) and not section.startswith("x-"):
                for name, entry in entries.items():
                    known = whole.setdefault(section, {}).setdefault(name, {})
                    for key, value in (entry or {}).items():
                        known[key] = known[key] + value if isinstance(known.get(key), list) else value
    return whole


def names(entries):
    return [entry if isinstance(entry, str) else entry["source"] for entry in entries]


def volume(entry):
    return entry.split(":")[0]


def wrong(folder, whole):
    for section in ("configs", "secrets"):
        for name, entry in whole[section].items():
            path = folder / entry["file"]
            # secrets.sh makes those, where an installation is; a certificate comes from elsewhere.
            made = section == "secrets" and (name in script(folder) or name.startswith("tls_"))
            if not made and not path.is_file():
                yield f"{section}.{name}: {path} is not there"
    for name, service in whole["services"].items():
        for section in ("configs", "secrets"):
            yield from (f"{name}: {each} is none of the {section}" for each in names(service.get(section, [])) if each not in whole[section])
        yield from (f"{name}: there is no network {each}" for each in service.get("networks", []) if each not in whole["networks"])
        for entry in service.get("volumes", []):
            source = volume(entry)
            if source.startswith("."):
                # What generates dashboards makes the folder.
                if not (folder / source).exists() and not source.startswith("./monitoring"):
                    yield f"{name}: {source} is not there"
            elif not source.startswith("/") and source not in whole["volumes"]:
                yield f"{name}: there is no volume {source}"
        yield from (f"{name}: waits for {each}, which is not there" for each in service.get("depends_on", {}) if each not in whole["services"])
        limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
        yield from (f"{name}: has no limit of {what}" for what in ("cpus", "memory") if what not in limits)
        if "restart" not in service:
            yield f"{name}: does not come back after a crash"
        if "no-new-privileges:true" not in service.get("security_opt", []):
            yield f"{name}: can become more than it is"
        if "container_name" in service:
            yield f"{name}: has a container_name, so there can be only one"
        if name in SCALED and "ports" in service:
            yield f"{name}: takes a port of the machine, so there can be only one"
        if name in SCALED and service["deploy"].get("replicas", 1) < 2:
            yield f"{name}: is alone"
        if name in (*SCALED, *ONCE) and not (service.get("read_only") and service.get("cap_drop") == ["ALL"]):
            yield f"{name}: can write to its image, or keeps capabilities"
        if ":" not in service["image"] or service["image"].endswith(":latest"):
            yield f"{name}: image {service['image']} is any version"


def script(folder):
    return (folder / "secrets.sh").read_text()


def main():
    folder, files = pathlib.Path(sys.argv[1]), sys.argv[2:]
    found = list(wrong(folder, merged(files)))
    print("\n".join(found))
    sys.exit(1 if found else 0)


main()
