"""A Ray cluster of two nodes on this machine."""

import shutil
import tempfile
from typing import Any


class TwoNodes:
    """A head and a second node of one CPU each, every node in processes of its own."""

    def __init__(self) -> None:
        import ray
        from ray.cluster_utils import Cluster

        # The paths of Ray's sockets must be short.
        self.folder = tempfile.mkdtemp(prefix="r", dir="/tmp")
        memory = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
        self._ray: Any = ray
        self._cluster: Any = Cluster(
            initialize_head=True, head_node_args={"include_dashboard": False, "temp_dir": self.folder, **memory}
        )
        self._second: Any = self._cluster.add_node(**memory)
        ray.init(address=self._cluster.address, log_to_driver=False, logging_level="ERROR")

    def kill(self) -> None:
        """SIGKILL to the processes of the second node."""
        self._cluster.remove_node(self._second, allow_graceful=False)

    def close(self) -> None:
        self._ray.shutdown()
        self._cluster.shutdown()
        shutil.rmtree(self.folder, ignore_errors=True)
