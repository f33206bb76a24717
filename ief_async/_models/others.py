"""Models that a scan of pods does not need: deployments, nodes, groups, instances, whole answers.

What is said in ``pods`` is so here.
"""

from typing import Any

import attrs

from ief_async._models.pods import Affinity, Dated, Pod, PodConfigs, Probe, Resources, Volume, words
from ief_async._values import Value

# ---- deployments -------------------------------------------------------------------------------


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Tag(Value):
    """A name and a value that users set: a tag, or an attribute.

    Attributes:
        key: the name.
        value: the value.
    """

    key: str | None = None
    value: str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class KeyRef(Value):
    """One key of a secret or of a config map.

    Attributes:
        name: the secret or config map.
        key: the key in it.
    """

    name: str | None = None
    key: str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ValueFrom(Value):
    """Where the value of an environment variable comes from; one of the two is set.

    Attributes:
        secret: a key of a secret.
        configmap: a key of a config map.
    """

    secret: KeyRef | None = None
    configmap: KeyRef | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class EnvTemplate(Value):
    """An environment variable of a deployment: its value, or where the value comes from.

    Attributes:
        name: up to 2,048 letters, digits and underscores; no digit first.
        value: up to 20,480 characters. It may be a secret, so no ``repr`` shows it.
        value_from: a secret or a config map instead.
        field_path: a field of the pod instead; only ``status.hostIP``.
    """

    name: str | None = None
    value: str | None = attrs.field(default=None, repr=False)
    value_from: ValueFrom | None = None
    field_path: str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PortRange(Value):
    """A range of ports of a node, any of which may be used.

    Attributes:
        min_port: the first.
        max_port: the last.
    """

    min_port: int | None = None
    max_port: int | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PortTemplate(Value):
    """A container's port in a deployment.

    Attributes:
        container_port: 1 to 65535.
        host_port: 1 to 65535.
        host_ip: address of the node's network card.
        host_port_range: instead of `host_port`, ports to choose from.
    """

    container_port: int | None = None
    host_port: int | None = None
    host_ip: str | None = None
    host_port_range: PortRange | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ContainerTemplate(Value):
    """A container in a deployment; it has the fields of `Container` except its state.

    Attributes:
        name: up to 32 lower-case letters, digits and hyphens.
        image_url: where the image comes from.
        version: tag of the image.
        args: arguments of the start command.
        command: the start command.
        resources: what it may use.
        envs: environment variables.
        ports: its ports.
        privileged: whether it runs in privileged mode.
        run_as_user: the user's number, 0 to 65534.
        readiness_probe: while it fails, the container is not ready.
        liveness_probe: if it fails, the container is restarted.
        volumes: mounted volumes.
        npu_type: ``D310``, ``D310B``, formerly ``D910``; ``""`` is D310.
    """

    name: str | None = None
    image_url: str | None = None
    version: str | None = None
    args: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    resources: Resources | None = None
    envs: tuple[EnvTemplate, ...] = ()
    ports: tuple[PortTemplate, ...] = ()
    privileged: bool | None = None
    run_as_user: int | None = None
    readiness_probe: Probe | None = None
    liveness_probe: Probe | None = None
    volumes: tuple[Volume, ...] = ()
    npu_type: str | None = words("D310", "D310B", "D910")


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PodTemplate(Value):
    """The template of the pods of a deployment.

    Attributes:
        configs: how they run.
        affinity: where they may run; platinum edition only.
        init_containers: containers that run to their end before the others start.
        containers: their containers.
    """

    configs: PodConfigs | None = None
    affinity: Affinity | None = None
    init_containers: tuple[ContainerTemplate, ...] = ()
    containers: tuple[ContainerTemplate, ...] = ()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class DeploymentAnnotations(Value):
    """Annotations that the service sets on a deployment.

    Attributes:
        ring_controller: as the service writes it.
        autonomy_edge_selector: as the service writes it.
    """

    ring_controller: str | None = None
    autonomy_edge_selector: str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Deployment(Dated):
    """An application that is deployed to a node or to a node group.

    Attributes:
        id: its uuid: what `iter_pods` takes.
        name: up to 32 characters.
        replicas: how many pods it should have.
        ready_replicas: how many pods are ready.
        description: up to 255 characters.
        group_id: the node group it is deployed to, if it is.
        node_ids: the nodes it is deployed to; at present one at most.
        tags: its tags.
        api_version: its API version.
        source: ``iem``, ``userdefined``; ``userdefine`` also occurs.
        project_id: its project.
        created_at: when it was created, as the server wrote it; see `created`.
        updated_at: when it last changed, as the server wrote it; see `updated`.
        template: the template of its pods.
        state: ``FREEZE``, ``PENDING_DELETE``, ``DELETE_FAILED``; left out otherwise.
        source_id: reserved.
        annotations: annotations set by the service.
    """

    id: str
    name: str | None = None
    replicas: int | None = None
    ready_replicas: int | None = None
    description: str | None = None
    group_id: str | None = None
    node_ids: tuple[str, ...] = ()
    tags: tuple[Tag, ...] = ()
    api_version: str | None = None
    source: str | None = words("iem", "userdefined", "userdefine")
    project_id: str | None = None
    created_at: str | None = None
    updated_at: str | None = None
    template: PodTemplate | None = None
    state: str | None = words("FREEZE", "PENDING_DELETE", "DELETE_FAILED")
    source_id: str | None = None
    annotations: DeploymentAnnotations | None = None


# ---- nodes and groups --------------------------------------------------------------------------


@attrs.frozen(kw_only=True, eq=False, repr=False)
class LogConfig(Value):
    """How one kind of log of a node is stored.

    Attributes:
        id: its id.
        size: MB of a file.
        level: what is logged.
        rotate_num: how many files are kept.
        rotate_period: how often a new file is started.
        type: where it is stored.
        component: ``app`` or ``system``.
    """

    id: str | None = None
    size: int | None = None
    level: str | None = None
    rotate_num: int | None = None
    rotate_period: str | None = None
    type: str | None = None
    component: str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class DeviceInfo(Value):
    """Devices bound to a node.

    Attributes:
        relation: their relation to the node.
        comment: a comment.
        device_ids: the devices.
    """

    relation: str | None = None
    comment: str | None = None
    device_ids: tuple[str, ...] = ()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class GpuInfo(Value):
    """A GPU of a node.

    Attributes:
        name: its name.
        type: its model.
        capacity: its memory.
    """

    name: str | None = None
    type: str | None = None
    capacity: str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class NpuInfo(Value):
    """An NPU of a node.

    Attributes:
        name: its name.
        type: its model.
        capacity: its capacity.
        driver_version: the version of its driver.
    """

    name: str | None = None
    type: str | None = None
    capacity: str | None = None
    driver_version: str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Nic(Value):
    """A network card of a node.

    Attributes:
        interface: its name.
        ip: its address.
    """

    interface: str | None = None
    ip: str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class UpgradeRecord(Value):
    """One upgrade of a node's software.

    Attributes:
        id: its number.
        from_version: the version before; left out of the first record.
        to_version: the version after.
        upgrade_time: seconds since 1970.
        result: the outcome.
        dur_time: how many seconds it took.
    """

    id: int | None = None
    from_version: str | None = None
    to_version: str | None = None
    upgrade_time: int | None = None
    result: str | None = None
    dur_time: int | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class NtpConfigs(Value):
    """The NTP settings of a node.

    Attributes:
        ntp_enabled: whether NTP is on.
        ntp_servers: the servers.
    """

    ntp_enabled: bool | None = None
    ntp_servers: tuple[str, ...] = ()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class NodeStateDetails(Value):
    """The state of the registration of a node.

    Attributes:
        register_stat: the state of its registration.
        purchase_stat: the state of its purchase.
        purchase_error: the error of its purchase.
    """

    register_stat: str | None = None
    purchase_stat: str | None = None
    purchase_error: str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Node(Dated):
    """An edge node. No ``repr`` shows its secrets.

    Attributes:
        id: its uuid: what ``iter_pods(node_ids=…)`` takes.
        name: its name.
        description: its description.
        created_at: when it was created, as the server wrote it; see `created`.
        updated_at: when it last changed, as the server wrote it; see `updated`.
        project_id: its project.
        private_key: a secret; no ``repr`` shows it.
        certificate: a secret; no ``repr`` shows it.
        ca: a secret; no ``repr`` shows it. May be None.
        state: ``RUNNING``, ``FAIL``, ``UPGRADING``, ``STOPPED``, ``UNCONNECTED``; also ``FREEZE``,
            which the filter does not accept.
        package: its configuration, a secret; no ``repr`` shows it.
        master_addr: the address it reports to.
        cpu: cores.
        memory: MB.
        os_name: its operating system.
        os_version: the version of its operating system.
        pause_docker_image: the image of the pause container.
        arch: its architecture.
        os_type: the kind of its operating system.
        deployment_num: how many pods are on it.
        enable_gpu: whether GPUs are used.
        log_configs: how logs are stored.
        device_infos: devices bound to it.
        edged_version: version of its agent.
        gpu_num: GPUs.
        host_ips: its addresses.
        relation: the relation of a device to it.
        comment: a comment.
        gpu_info: its GPUs.
        device_num: how many devices are bound to it.
        enable_npu: whether NPUs are used.
        npu_type: the model of its NPUs.
        nics: its network cards.
        host_name: its name in its own network.
        ief_node_version: version of its software.
        upgrade_flag: whether it may be upgraded.
        product_id: the product it was registered with.
        group_ids: the node groups it is in.
        upgrade_history: its upgrades.
        attributes: attributes set by users; up to 32.
        docker_enable: whether it runs containers.
        mqtt_mode: ``internal`` or ``external``.
        mqtt_external: address of the external broker.
        mqtt_internal: address of the internal broker.
        node_type: its kind.
        ntp_configs: its NTP settings.
        error_reason: a short error message.
        tags: its tags; up to 20.
        npu_num: NPUs.
        npu_info: its NPUs.
        container_runtime_version: version of its container runtime.
        identifier: a secret; no ``repr`` shows it.
        purchase_id: the id of its purchase.
        state_details: the state of its registration.
        cert_remaining_valid_time: how long its certificate remains valid.
    """

    id: str
    name: str | None = None
    description: str | None = None
    created_at: str | None = None
    updated_at: str | None = None
    project_id: str | None = None
    private_key: str | None = attrs.field(default=None, repr=False)
    certificate: str | None = attrs.field(default=None, repr=False)
    ca: str | None = attrs.field(default=None, repr=False)
    state: str | None = words("RUNNING", "FAIL", "UPGRADING", "STOPPED", "UNCONNECTED", "FREEZE")
    package: str | None = attrs.field(default=None, repr=False)
    master_addr: str | None = None
    cpu: int | None = None
    memory: int | None = None
    os_name: str | None = None
    os_version: str | None = None
    pause_docker_image: str | None = None
    arch: str | None = None
    os_type: str | None = None
    deployment_num: int | None = None
    enable_gpu: bool | None = None
    log_configs: tuple[LogConfig, ...] = ()
    device_infos: tuple[DeviceInfo, ...] = ()
    edged_version: str | None = None
    gpu_num: int | None = None
    host_ips: tuple[str, ...] = ()
    relation: str | None = None
    comment: str | None = None
    gpu_info: tuple[GpuInfo, ...] = ()
    device_num: int | None = None
    enable_npu: bool | None = None
    npu_type: str | None = None
    nics: tuple[Nic, ...] = ()
    host_name: str | None = None
    ief_node_version: str | None = None
    upgrade_flag: bool | None = None
    product_id: str | None = None
    group_ids: tuple[str, ...] = ()
    upgrade_history: tuple[UpgradeRecord, ...] = ()
    attributes: tuple[Tag, ...] = ()
    docker_enable: bool | None = None
    mqtt_mode: str | None = words("internal", "external")
    mqtt_external: str | None = None
    mqtt_internal: str | None = None
    node_type: str | None = None
    ntp_configs: NtpConfigs | None = None
    error_reason: str | None = None
    tags: tuple[Tag, ...] = ()
    npu_num: int | None = None
    npu_info: tuple[NpuInfo, ...] = ()
    container_runtime_version: str | None = None
    identifier: str | None = attrs.field(default=None, repr=False)
    purchase_id: str | None = None
    state_details: NodeStateDetails | None = None
    cert_remaining_valid_time: int | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Group(Dated):
    """A node group of a platinum (enterprise) instance.

    Attributes:
        id: its uuid: what ``iter_pods(group_ids=…)`` takes.
        name: up to 32 characters.
        description: its description.
        created_at: when it was created, as the server wrote it; see `created`.
        updated_at: when it last changed, as the server wrote it; see `updated`.
        project_id: its project.
        iam_role: its role.
        cpu: cores of all its nodes.
        memory: MB of all its nodes.
        gpu_num: GPUs of all its nodes.
        nodes: its nodes.
        deployments: the deployments on it: id, name, description, project and times.
        attributes: attributes set by users.
        tags: its tags.
        success_node_add: nodes that were added.
        success_node_del: nodes that were removed.
        failed_node_add: nodes that could not be added.
        failed_node_del: nodes that could not be removed.
    """

    id: str
    name: str | None = None
    description: str | None = None
    created_at: str | None = None
    updated_at: str | None = None
    project_id: str | None = None
    iam_role: str | None = None
    cpu: int | None = None
    memory: int | None = None
    gpu_num: int | None = None
    nodes: tuple[Node, ...] = ()
    deployments: tuple[Deployment, ...] = ()
    attributes: tuple[Tag, ...] = ()
    tags: tuple[Tag, ...] = ()
    success_node_add: tuple[str, ...] = ()
    success_node_del: tuple[str, ...] = ()
    failed_node_add: tuple[str, ...] = ()
    failed_node_del: tuple[str, ...] = ()


# ---- instances ---------------------------------------------------------------------------------


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Instance(Dated):
    """A platinum (enterprise) instance (ListIefInstances); the document explains few of its fields.

    Attributes:
        id: what `IefSession` takes as `instance_id`.
        name: its name.
        domain_id: its account.
        project_id: its project.
        dimension: its scale.
        edition: its edition.
        version: its version.
        cluster_id: its cluster.
        bandwidth: its bandwidth.
        k8s_version: version of its Kubernetes.
        access_domain: the host that nodes connect to.
        telemetry_domain: the host that nodes report to.
        access_eip: the address of `access_domain`.
        status: its state.
        percentage: the progress of its creation.
        tasks: its running tasks: a string in one document, a list of objects in a newer one.
        created_at: when it was created, as the server wrote it; see `created`.
        updated_at: when it last changed, as the server wrote it; see `updated`.
        node_used_count: how many nodes it has.
        tags: its tags, also a string or a list of objects.
        quota: how many nodes it may have.
        type: its kind.
        stargate_domain: a further host.
        stargate_endpoint: the endpoint of `stargate_domain`.
        stargate_eip: the address of `stargate_domain`.
        cluster_az: the zone of its cluster.
        support_functions: the functions it supports.
        framework: its architecture.
        billing_mode: its billing mode.
        node_manage_mode: how nodes are managed.
        sku_code: the code of the product.
        metadata: other data.
        cbc_state: the state of its order.
        cbc_node_state: the state of the order of its nodes.
    """

    id: str
    name: str | None = None
    domain_id: str | None = None
    project_id: str | None = None
    dimension: str | None = None
    edition: str | None = None
    version: str | None = None
    cluster_id: str | None = None
    bandwidth: str | None = None
    k8s_version: str | None = None
    access_domain: str | None = None
    telemetry_domain: str | None = None
    access_eip: str | None = None
    status: str | None = None
    percentage: str | None = None
    tasks: Any = attrs.field(default=None, hash=False)
    created_at: str | None = None
    updated_at: str | None = None
    node_used_count: str | None = None
    tags: Any = attrs.field(default=None, hash=False)
    quota: str | None = None
    type: str | None = None
    stargate_domain: str | None = None
    stargate_endpoint: str | None = None
    stargate_eip: str | None = None
    cluster_az: str | None = None
    support_functions: str | None = None
    framework: str | None = None
    billing_mode: str | None = None
    node_manage_mode: str | None = None
    sku_code: str | None = None
    metadata: str | None = None
    cbc_state: str | None = None
    cbc_node_state: str | None = None


# ---- answers ------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PodList(Value):
    """A whole response (table 4). A session turns it into a `Page`.

    Attributes:
        count: how many application instances there are in total, not on this page.
        pods: the application instances of this page.
    """

    count: int | None = None
    pods: tuple[Pod, ...] = ()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ErrorBody(Value):
    """The body of an error (tables 16 and 17).

    Attributes:
        error_code: such as ``IEF.100001``, or ``APIGW.0308`` from the gateway.
        error_msg: what went wrong; the wording may change.
    """

    error_code: str | None = None
    error_msg: str | None = None
