"""Two Ray nodes on one machine: prints the cluster's address, and kills the second node when a line comes in.

    python -m tests.helpers.ray_cluster
"""

import sys

from ray.cluster_utils import Cluster

NODE = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}


def main() -> None:
    """Run until the standard input ends."""
    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    second = cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
    cluster.wait_for_nodes()
    print(cluster.address, flush=True)
    for _ in sys.stdin:
        cluster.remove_node(second, allow_graceful=False)
        print("killed", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
