"""The server's words: every table and field, every form of time, and how the values behave."""

import copy
import inspect
import json
import multiprocessing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import cattrs
import msgspec
import pytest
from conftest import examples
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ief_async import PayloadError, _models
from ief_async._endpoints import LISTINGS, PODS
from ief_async._models import (
    Container,
    Deployment,
    Env,
    EnvTemplate,
    ErrorBody,
    Group,
    Instance,
    LabelSelector,
    Node,
    Pod,
    PodList,
    ResourceAmounts,
    UpgradeRecord,
    parse_timestamp,
    sparse,
)
from ief_async._models.pods import _TIMESTAMP
from ief_async._structure.schema_watch import SchemaWatch
from ief_async._structure.structure import structure_of

SAMPLES = Path(__file__).parent / "samples"
EXAMPLE = (SAMPLES / "list_pods.200.json").read_bytes()
FULL = b'{"count": 1, "pods": [%s]}' % (SAMPLES / "pod.full.json").read_bytes()
DURING = "DuringSchedulingIgnoredDuringExecution"
ERROR = b'{"error_code": "IEF.100001", "error_msg": "PROJECT_ID not found"}'

# Every key of the document's tables by class, in its order; after the bar what only the example,
# newer documents or the vendor's SDKs have.
TABLES = {
    "PodList": "count pods",
    "Pod": "id name configs affinity init_containers containers node_id deployment_id project_id"
    " reason message created_at updated_at state | description",
    "Container": "args command name envs image_url version liveness_probe readiness_probe ports"
    " resources volumes restarts message reason is_ready privileged container_id state npu_type",
    "Volume": "name type read_only source destination | default_mode",
    "Resources": "limits requests",
    "ResourceAmounts": "cpu memory gpu npu | D310 D310B D910",
    "Port": "container_port host_port host_ip",
    "Probe": "http_get exec initial_delay_seconds timeout_seconds",
    "HttpGet": "path port host scheme",
    "Exec": "command",
    "Env": "name value",
    "PodConfigs": "host_network host_pid migration restart_policy toleration_seconds | dns_policy",
    "ErrorBody": "error_code error_msg",
    "Affinity": "| nodeAffinity podAffinity podAntiAffinity",
    "NodeAffinity": f"| preferred{DURING} required{DURING}",
    "PodAffinity": f"| preferred{DURING} required{DURING}",
    "PreferredNodeTerm": "| weight preference",
    "NodeSelector": "| nodeSelectorTerms",
    "NodeSelectorTerm": "| matchExpressions",
    "WeightedPodAffinityTerm": "| weight podAffinityTerm",
    "PodAffinityTerm": "| labelSelector namespaces topologyKey",
    "LabelSelector": "| matchExpressions matchLabels",
    "MatchExpression": "| key operator values",
    # the sibling lists: of their documents and the vendor's SDK
    "Deployment": "id name replicas ready_replicas description group_id node_ids tags api_version"
    " source project_id created_at updated_at template state source_id annotations",
    "DeploymentAnnotations": "ring_controller autonomy_edge_selector",
    "PodTemplate": "configs affinity init_containers containers",
    "ContainerTemplate": "name image_url args command resources envs ports privileged run_as_user"
    " readiness_probe liveness_probe volumes npu_type | version",
    "EnvTemplate": "name value value_from field_path",
    "ValueFrom": "secret configmap",
    "KeyRef": "name key",
    "PortTemplate": "container_port host_port host_ip host_port_range",
    "PortRange": "min_port max_port",
    "Tag": "key value",
    "Node": "id name description created_at updated_at project_id private_key certificate ca state"
    " package master_addr cpu memory os_name os_version pause_docker_image arch os_type"
    " deployment_num enable_gpu log_configs device_infos edged_version gpu_num host_ips relation"
    " comment gpu_info device_num enable_npu npu_type nics host_name ief_node_version upgrade_flag"
    " product_id group_ids upgrade_history attributes docker_enable mqtt_mode mqtt_external"
    " mqtt_internal node_type ntp_configs error_reason tags npu_num npu_info"
    " container_runtime_version identifier purchase_id state_details cert_remaining_valid_time",
    "LogConfig": "id size level rotate_num rotate_period type component",
    "DeviceInfo": "relation comment device_ids",
    "GpuInfo": "name type capacity",
    "NpuInfo": "name type capacity driver_version",
    "Nic": "interface ip",
    "UpgradeRecord": "id from_version to_version upgrade_time result dur_time",
    "NtpConfigs": "ntp_enabled ntp_servers",
    "NodeStateDetails": "register_stat purchase_stat purchase_error",
    "Group": "id name description created_at updated_at project_id iam_role cpu memory gpu_num"
    " nodes deployments attributes tags success_node_add success_node_del failed_node_add"
    " failed_node_del",
    "Instance": "id name domain_id project_id dimension edition version cluster_id bandwidth"
    " k8s_version access_domain telemetry_domain access_eip status percentage tasks created_at"
    " updated_at node_used_count tags quota type stargate_domain stargate_endpoint stargate_eip"
    " cluster_az support_functions framework billing_mode node_manage_mode sku_code metadata"
    " cbc_state cbc_node_state",
}
OF_PODS = [*TABLES][: [*TABLES].index("Deployment")]
OF_SIBLINGS = [*TABLES][len(OF_PODS) :]
AMOUNTS = {*TABLES["ResourceAmounts"].split()} - {"|"}
NODE_SECRETS = ("private_key", "certificate", "ca", "package", "identifier")
NODE_STATES = ("RUNNING", "FAIL", "UPGRADING", "STOPPED", "UNCONNECTED", "FREEZE")
OTHER_TEXTS = """
now -1 2019-10-10 1570674242325 2019-02-30T00:00:00Z 2019-10-10T24:00:00Z 2019-10-10T23:59:60Z
2019-10-10T02:24:02+24:00 2019-10-10T02:24:02+08:60 2019-10-10T02:24:02+99:99
0001-01-01T00:00:00+08:00 9999-12-31T23:59:59-08:00 2019-10-10T02:24:02.\u0663Z
\u0661\u0665\u0667\u0660 \u0662\u0660\u0661\u0669-10-10T02:24:02Z \N{SUPERSCRIPT TWO}
"""
MODELS = {name: one for name in _models.__all__ if attrs.has(one := getattr(_models, name))}
SIBLINGS = [*TABLES][len(OF_PODS) :]
AMOUNTS = {*TABLES["ResourceAmounts"].split()} - {"|"}
NODE_SECRETS = ("private_key", "certificate", "ca", "package", "identifier")
NODE_STATES = ("RUNNING", "FAIL", "UPGRADING", "STOPPED", "UNCONNECTED", "FREEZE")
OTHER_TEXTS = """
now -1 2019-10-10 1570674242325 2019-02-30T00:00:00Z 2019-10-10T24:00:00Z 2019-10-10T23:59:60Z
2019-10-10T02:24:02+24:00 2019-10-10T02:24:02+08:60 2019-10-10T02:24:02+99:99
0001-01-01T00:00:00+08:00 9999-12-31T23:59:59-08:00 2019-10-10T02:24:02.\u0663Z
\u0661\u0665\u0667\u0660 \u0662\u0660\u0661\u0669-10-10T02:24:02Z \N{SUPERSCRIPT TWO}
"""
MODELS = {name: getattr(_models, name) for name in _models.__all__ if name[0].isupper()}
del MODELS["TIMESTAMPS"]
SIBLINGS = json.loads((SAMPLES / "siblings.full.json").read_bytes())
ROWS = {one.key: one.model for one in LISTINGS.values() if one is not PODS}


def both(body, cls=PodList):
    """Structure a body by a plain cattrs converter and by msgspec; return what they agree on."""
    by_cattrs = cattrs.Converter().structure(json.loads(body), cls)
    assert by_cattrs == msgspec.json.decode(body, type=cls, strict=False)
    return by_cattrs


def row_of(cls, document, key="nodes"):
    """Structure a row of a list by the fast path and by cattrs alone; return what they agree on."""
    structure, row = structure_of(cls), json.dumps(document).encode()
    (item,) = structure.items([row], [0], key=key)
    assert item == structure.item_tolerantly(row, f"{key}[0]")
    return item


def said(data):
    """Return a JSON object without what is empty or left out; amounts of resources as numbers."""
    full = {key: value for key, value in data.items() if value not in (None, [], {})}
    amounts = full.keys() <= AMOUNTS
    return {key: float(value) for key, value in full.items()} if amounts else full


def bare(cls):
    """Return an object without any field that may be left out: as made, and as decoded."""
    said = {"id": "p"} if cls in {Pod, *ROWS.values()} else {}
    return cls(**said), msgspec.json.decode(json.dumps(said), type=cls)


def sent(value):
    """Return what arrives of a value in another process: it is pickled on its way."""
    here, there = multiprocessing.Pipe()
    with here, there:
        here.send(value)
        return there.recv()


def test_every_table_has_its_class():
    """There is one class for each table of the document and each part of affinity, no other."""
    assert TABLES.keys() == MODELS.keys()


@pytest.mark.parametrize("name", TABLES)
def test_a_class_has_the_keys_of_its_table(name):
    """Fields are named exactly as the keys, in the document's order, and each is explained."""
    documented, _, added = (part.split() for part in TABLES[name].partition("|"))
    fields = attrs.fields_dict(MODELS[name])
    assert fields.keys() == {*documented, *added}
    assert [key for key in fields if key in documented] == documented
    explained = inspect.getdoc(MODELS[name]).partition("Attributes:\n")[2].splitlines()
    assert [line.partition(":")[0].strip() for line in explained if line[4] != " "] == [*fields]


@pytest.mark.parametrize("name", TABLES)
def test_only_the_id_must_be_there(name):
    """A class is frozen and keyword-only; all but a row's id defaults to "not said"."""
    cls = MODELS[name]
    value, _ = bare(cls)
    rest = attrs.asdict(value, recurse=False, filter=lambda field, _: field.name != "id")
    assert all(item in (None, (), {}) for item in rest.values())
    assert all(field.kw_only for field in attrs.fields(cls))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(value, attrs.fields(cls)[0].name, None)


def test_what_a_pod_mostly_lacks_takes_no_room():
    """What is left out in the document's own example is found on the class, not in the object."""
    (pod,) = msgspec.json.decode(EXAMPLE, type=PodList, strict=False).pods
    (container,) = pod.containers
    probe = container.liveness_probe
    for value in (pod, pod.configs, container, probe, probe.http_get, *container.volumes):
        rare = {
            field.name
            for field in attrs.fields(type(value))
            if getattr(type(value), field.name, None) is field.default
        }
        assert rare
        assert {} == vars(value)
    assert pod.affinity is None
    assert () == pod.init_containers


@pytest.mark.parametrize("name", TABLES)
def test_an_object_with_fields_left_out_is_like_any_other(name):
    """What was decoded of a bare row is in each respect what the constructor makes."""
    cls = MODELS[name]
    made, decoded = bare(cls)

    for twin in (decoded, copy.copy(decoded), copy.deepcopy(decoded), sent(decoded)):
        assert (made, repr(made), hash(made)) == (twin, repr(twin), hash(twin))
        assert attrs.asdict(made) == attrs.asdict(twin)
        assert attrs.astuple(made) == attrs.astuple(twin)
        assert cattrs.unstructure(made) == cattrs.unstructure(twin)
        assert made == attrs.evolve(twin) == cattrs.structure(cattrs.unstructure(twin), cls)
    field = attrs.fields(cls)[-1].name
    changed = attrs.evolve(decoded, **{field: ("x",)})
    assert (("x",), made) == (getattr(changed, field), decoded)
    assert changed != decoded
    for change in (lambda: setattr(decoded, field, 1), lambda: delattr(decoded, field)):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            change()


def test_classes_of_users_are_sparse_too():
    """With `sparse`, or below a class that has it, defaults and methods are as a class says."""

    @sparse("state", "node_id")
    @attrs.frozen(kw_only=True)
    class Own(Pod):
        """It has a docstring."""

        state: str = "UNKNOWN"
        node_id: str | None = None
        replicas: int = 1

        @property
        def label(self):
            return super().__repr__()[:8] + self.state

        def longer(self):
            return super().__hash__() and self.label

    @attrs.frozen(kw_only=True)
    class Longer(Own):
        replicas: int = 2

    for cls in (Own, Longer):
        bare, full = structure_of(cls).items(
            [b'{"id": "p"}', b'{"id": "p", "state": "RUNNING", "replicas": 3}'], [0, 1], key="pods"
        )
        assert structure_of(cls).fast
        assert (cls(id="p"), cls(id="p", state="RUNNING", replicas=3)) == (bare, full)
        assert ("UNKNOWN", None, attrs.fields(cls).replicas.default) == (
            bare.state, bare.node_id, bare.replicas,
        )  # fmt: skip
        assert "RUNNING" in full.longer()
        assert ({}, {"state": "RUNNING"}) == (vars(bare), vars(full))
        assert f"{__name__}.{test_classes_of_users_are_sparse_too.__name__}.<locals>" in repr(cls)
    assert "It has a docstring." == Own.__doc__


def test_a_class_below_a_sparse_one_may_say_something_else():
    """A field with another default, or none at all, is not taken from the class above."""

    @attrs.frozen(kw_only=True, slots=False)
    class Counted(Pod):
        affinity: str = "UNKNOWN"

    @attrs.frozen(kw_only=True, slots=False)
    class Strict(Pod):
        affinity: str

    @attrs.frozen(kw_only=True)
    class Slotted(Pod):
        affinity: str = "UNKNOWN"

    for cls in (Counted, Slotted):
        (item,) = structure_of(cls).items([b'{"id": "p"}'], [0], key="pods")
        assert ("UNKNOWN", cls(id="p")) == (item.affinity, item)
    with pytest.raises(PayloadError, match="affinity is missing"):
        structure_of(Strict).items([b'{"id": "p"}'], [0], key="pods")


@pytest.mark.parametrize(
    ("slots", "name", "problem"),
    [
        (False, "state", "sparse\\(\\) needs an attrs class with slots"),
        (True, "id", "id must be a field whose default is a constant"),
        (True, "labels", "labels must be a field whose default is a constant"),
        (True, "stat", "stat must be a field whose default is a constant"),
    ],
)
def test_sparse_refuses_what_it_can_not_do(slots, name, problem):
    """A class without slots, and a name without a constant to fall back to, are refused."""

    class Row:
        id: str
        state: str | None = None
        labels: dict[str, str] = attrs.field(factory=dict)

    with pytest.raises(TypeError, match=f"Row: {problem}"):
        sparse(name)(attrs.frozen(Row, slots=slots))


def test_the_documented_answers_are_structured():
    """The document's example and error bodies come through whole, by cattrs and by msgspec."""
    (pod,) = both(EXAMPLE).pods
    assert (pod.state, pod.deployment_id, pod.reason) == ("RUNNING", None, "")
    assert pod.containers[0].resources.limits == ResourceAmounts(cpu=0.25, memory=500, gpu=500)
    assert both(ERROR, ErrorBody).error_code == "IEF.100001"


def test_no_field_of_the_full_sample_is_lost():
    """The full sample fills every field of every class, and each comes back as it was sent."""
    filled = set()

    def note(owner, field, value):
        if owner is not None and value not in (None, (), {}):
            filled.add(f"{type(owner).__name__}.{field.name}")
        return value

    answer = json.dumps(attrs.asdict(both(FULL), value_serializer=note))
    keys = {f"{name}.{key}" for name in OF_PODS for key in TABLES[name].split() if key != "|"}
    assert filled == keys - {"ErrorBody.error_code", "ErrorBody.error_msg"}
    assert json.loads(answer, object_hook=said) == json.loads(FULL, object_hook=said)


def test_new_values_and_new_keys_pass():
    """A state (C8) or a key that nobody documented breaks nothing; "" and None stay apart."""
    answer = both(b'{"pods": [{"id": "p", "state": "HIBERNATED", "aura": 1, "reason": ""}]}')
    assert answer.pods == (Pod(id="p", state="HIBERNATED", reason=""),)
    assert answer.pods != (Pod(id="p", state="HIBERNATED"),)


def test_amounts_are_numbers_and_is_ready_is_a_text():
    """An amount may come as text or number; is_ready is a text that no truth is read into."""
    assert both(b'{"cpu": "0.25", "npu": 1}', ResourceAmounts) == ResourceAmounts(cpu=0.25, npu=1.0)
    assert both(b'{"is_ready": "false"}', Container).is_ready == "false"


def test_pods_are_values():
    """A pod can be compared, hashed, pickled, copied and evolved (H18), affinity and all."""
    (pod,) = both(FULL).pods
    pickled = sent(pod)
    assert pickled is not pod
    for twin in (pickled, copy.copy(pod), copy.deepcopy(pod)):
        assert twin == pod
        assert hash(twin) == hash(pod)
    other = attrs.evolve(pod, state="RUNNING")
    assert (other.state, pod.state) == ("RUNNING", "FAILED")
    assert len({pod, other, attrs.evolve(other, state="FAILED")}) == 2
    labels = [LabelSelector(matchLabels={"app": app}) for app in "ab"]
    assert labels[0] != labels[1]
    assert hash(labels[0]) == hash(labels[1])  # a dict has no hash: it is left out


def test_no_repr_shows_what_a_variable_holds():
    """The value of an environment variable may be a secret: a pod's repr has only its name."""
    answer = both(FULL)
    assert "correct-horse-battery" not in repr(answer) + str(answer.pods[0])
    assert "STREAM_PASSWORD" in repr(answer)
    assert answer.pods[0].containers[0].envs[1].value == "correct-horse-battery"
    assert Env(name="a", value="1") != Env(name="a", value="2")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2019-10-10T02:24:02.325Z", "2019-10-10T02:24:02.325000"),
        ("2018-07-16T13:41:25.347335", "2018-07-16T13:41:25.347335"),
        ("2020-08-11T01:23:55.527805947Z", "2020-08-11T01:23:55.527805"),
        ("2019-07-24T03:52:53.545185+08:00", "2019-07-23T19:52:53.545185"),
        ("2018-07-26T07:31:29+08:00", "2018-07-25T23:31:29"),
        ("2018-07-26T07:31:29-03:30", "2018-07-26T11:01:29"),
        ("2022-06-07 08:21:05.794205 +0000 UTC", "2022-06-07T08:21:05.794205"),
        ("2020-07-08 01:23:25.845332909 +0000 UTC", "2020-07-08T01:23:25.845332"),
        ("2020-07-08 09:23:25 +0800 CST", "2020-07-08T01:23:25"),
        ("1570674242", "2019-10-10T02:24:02"),
        ("", None),
        (None, None),
    ],
)
def test_every_known_form_of_time_is_read(text, expected):
    """Each form seen in the service's documents (C11) is a moment in UTC, and the text is kept."""
    moment = datetime.fromisoformat(expected).replace(tzinfo=UTC) if expected else None
    created, updated = Pod(id="p", created_at=text), Pod(id="p", updated_at=text)
    assert (created.created, created.updated, created.created_at) == (moment, None, text)
    assert (updated.created, updated.updated, updated.updated_at) == (None, moment, text)
    assert moment is None or created.created.tzinfo is UTC


@pytest.mark.parametrize("text", [*OTHER_TEXTS.split(), "2022-06-07 08:21:05 EST", "1\n", "0" * 65])
def test_no_other_text_is_a_time(text):
    """What is out of range, of another form, or not of ASCII digits is None: nothing is guessed."""
    assert parse_timestamp(text) is None


@settings(max_examples=examples(300))
@given(st.text() | st.from_regex(_TIMESTAMP, fullmatch=True) | st.from_regex(r"\d{1,70}"))
@example("9" * 100_000)
@example("\ud800")
def test_reading_a_time_never_raises(text):
    """Whatever the text is, the answer is None or an aware moment in UTC."""
    moment = parse_timestamp(text)
    assert moment is None or moment.utcoffset() == timedelta(0)


# ---- the sibling lists ---------------------------------------------------------------------------


def test_secrets_of_a_node_are_in_no_repr():
    """Keys and certificates of a node are in no repr, nor in that of a group that holds it."""
    node = Node(id="n", **{name: f"secret-{name}" for name in NODE_SECRETS})

    assert "secret" not in repr(node)
    assert "secret" not in repr(Group(id="g", nodes=(node,)))
    assert "secret-" not in repr(row_of(Group, SIBLINGS["edge_groups"][0]))
    assert "correct-horse-battery" not in repr(row_of(Deployment, SIBLINGS["deployments"][0]))
    assert "secret-ca" == node.ca
    assert "secret" not in repr(EnvTemplate(name="n", value="secret"))


@pytest.mark.parametrize("cls", [Pod, *ROWS.values()])
def test_times_have_a_parsed_twin(cls):
    """What was made and changed at a time says so as an aware time, too; None if it is no time."""
    row = cls(id="x", created_at="2019-10-10T02:24:02Z", updated_at="never")

    assert datetime(2019, 10, 10, 2, 24, 2, tzinfo=UTC) == row.created
    assert row.updated is None


@pytest.mark.parametrize(("key", "cls"), ROWS.items())
def test_a_full_row_comes_back_as_it_was_sent(key, cls):
    """A row with every field says the same by either path, and attrs gives all of it back."""
    (document,) = SIBLINGS[key]
    row = row_of(cls, document, key)
    answer = json.dumps(attrs.asdict(row))

    assert structure_of(cls)._row.decode(json.dumps(document).encode()) == row  # no detour
    assert json.loads(answer, object_hook=said) == json.loads(
        json.dumps(document), object_hook=said
    )


def test_the_full_rows_fill_every_field():
    """No field of a deployment, node, group or instance, nor of their parts, goes untried."""
    filled = set()

    def note(owner, field, value):
        if owner is not None and value not in (None, (), {}):
            filled.add(f"{type(owner).__name__}.{field.name}")
        return value

    for key, cls in ROWS.items():
        attrs.asdict(row_of(cls, SIBLINGS[key][0], key), value_serializer=note)
    keys = {f"{name}.{key}" for name in OF_SIBLINGS for key in TABLES[name].split() if key != "|"}
    assert keys - filled == set()


@pytest.mark.parametrize("cls", [Pod, *ROWS.values()])
def test_an_id_makes_a_row(cls):
    """A row of which the server says the id alone is a row, and one without an id is refused."""
    assert row_of(cls, {"id": "x"}) == cls(id="x")
    assert row_of(cls, {"id": "x", "aura": {"hue": [1]}}) == cls(id="x")
    with pytest.raises(PayloadError, match=r"nodes\[0\]\.id is missing"):
        structure_of(cls).items([b'{"name": "n"}'], [0], key="nodes")


@pytest.mark.parametrize("name", TABLES)
def test_null_is_what_was_left_out(name):
    """Any value but an id may be null, and any list: it is as if the server had not said it."""
    cls = MODELS[name]
    nulls = {field.name: None for field in attrs.fields(cls)}
    known = {"id": "x"} if cls in {Pod, *ROWS.values()} else {}
    assert row_of(cls, nulls | known) == cls(**known)


def test_a_node_of_the_documented_example_is_read():
    """Nulls and a first upgrade from no version, as the document has them, lose nothing else."""
    nulls = dict.fromkeys(["comment", "ca", "node_type", "device_infos"])
    first = {"id": 1, "to_version": "2.51.0", "upgrade_time": 1570674242}
    node = row_of(Node, {"id": "n", "cpu": 4, "upgrade_history": [first], "npu_type": ""} | nulls)

    assert (node.comment, node.ca, node.node_type, node.device_infos) == (None, None, None, ())
    assert node.upgrade_history == (
        UpgradeRecord(id=1, to_version="2.51.0", upgrade_time=1570674242),
    )
    assert (node.cpu, node.npu_type) == (4, "")
    assert row_of(Node, {"id": "n", "device_infos": []}) == row_of(Node, {"id": "n"})


def test_numbers_and_truths_of_a_row_may_be_texts():
    """Digits are numbers, "" is none, "false" is False; a number where a text belongs is a text."""
    said_as_text = {"id": "n", "cpu": "4", "memory": "", "enable_gpu": "false", "tags": None}
    assert row_of(Node, said_as_text) == Node(id="n", cpu=4, enable_gpu=False)
    assert row_of(Deployment, {"id": "d", "replicas": "2"}) == Deployment(id="d", replicas=2)
    assert row_of(Instance, {"id": "i", "quota": 50}) == Instance(id="i", quota="50")


@pytest.mark.parametrize("tasks", ["", "[]", [{"name": "upgrade", "progress": 7}], None])
def test_tasks_of_an_instance_pass_as_they_are(tasks):
    """An instance's tasks and tags are a text or a list, as documents differ: neither changes."""
    instance = row_of(Instance, {"id": "i", "tasks": tasks, "tags": tasks}, "ief_instances")

    assert (instance.tasks, instance.tags) == (tasks, tasks)
    assert hash(instance) == hash(Instance(id="i"))


@pytest.mark.parametrize(("key", "cls"), ROWS.items())
def test_rows_are_values(key, cls):
    """A row can be compared, hashed, copied and evolved, and never be changed."""
    row = row_of(cls, SIBLINGS[key][0], key)
    twin = copy.deepcopy(row)

    assert twin == row
    assert len({row, twin, attrs.evolve(row, name="other")}) == 2
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        row.name = "other"


@pytest.mark.parametrize(("key", "cls"), ROWS.items())
def test_the_words_of_the_documents_are_known(key, cls):
    """A schema watch has nothing to say of a documented row, and names a state that is new."""
    watch, (document,) = SchemaWatch(cls), SIBLINGS[key]
    watch.look([json.dumps(document).encode()])
    assert not watch.unknown_fields + watch.unknown_values

    watch.look([json.dumps(document | {"state": "MELTED", "aura": 1}).encode()])
    assert watch.unknown_fields["aura"] == 1
    stateless = "state" not in TABLES[cls.__name__].split()
    assert watch.unknown_values == ({} if stateless else {"state=MELTED": 1})


@pytest.mark.parametrize("state", NODE_STATES)
def test_every_known_state_of_a_node_is_known(state):
    """The states that a filter takes and FREEZE, which none takes, are no news to a watch."""
    watch = SchemaWatch(Node)
    watch.look([json.dumps({"id": "n", "state": state}).encode()])
    assert not watch.unknown_values


def test_a_refusal_shows_no_secret():
    """An error on a node or its group names the field, and nothing of what the node holds."""
    secrets = {name: f"hunter2-{name}" for name in NODE_SECRETS}
    nodes = [{"id": "n", **secrets, "cpu": ["hunter2-cpu"]}]
    for cls, row, path in (
        (Node, nodes[0], r"nodes\[0\]\.cpu"),
        (Group, {"id": "g", "nodes": nodes}, r"nodes\[0\]\.nodes\[0\]\.cpu"),
    ):
        with pytest.raises(PayloadError, match=path) as caught:
            row_of(cls, row)
        assert "hunter2" not in str(caught.value) + repr(caught.value)
