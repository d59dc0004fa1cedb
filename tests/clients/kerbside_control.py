"""The control plane that a kerbside-proxy asks: kerbside_control.py SOCKET TARGET.

Lets every client through to the one server that the JSON object TARGET describes (port, tls_port,
ticket, ca, subject), with the firewall enforced. Prints a line for each question.
"""

import concurrent.futures
import json
import sys
import time

import grpc
from kerbside.rpc import kerbside_pb2, kerbside_pb2_grpc

socket, target = sys.argv[1], json.loads(sys.argv[2])


class Control(kerbside_pb2_grpc.KerbsideProxyServicer):
    def AuthorizeConnection(self, request, _context):
        print("authorize", request.channel_type, request.channel_id, flush=True)
        return kerbside_pb2.AuthorizeConnectionReply(
            target=kerbside_pb2.Target(
                hypervisor="127.0.0.1",
                hypervisor_ip="127.0.0.1",
                insecure_port=target["port"],
                secure_port=target.get("tls_port", 0),
                ticket=target.get("ticket", ""),
                ca_cert=target.get("ca", ""),
                host_subject=target.get("subject", ""),
                source="tests",
                uuid="4d1c7a52-2c9b-4d0e-9d53-0f2f3c6a1e11",
                session_id="tests",
            ),
            firewall_policy=kerbside_pb2.FirewallPolicy(mode=kerbside_pb2.FirewallPolicy.ENFORCE),
        )

    def RegisterChannel(self, _request, _context):
        return kerbside_pb2.StatusReply(success=True)

    def DeregisterChannel(self, _request, _context):
        return kerbside_pb2.StatusReply(success=True)

    def ClearNodeChannels(self, _request, _context):
        return kerbside_pb2.StatusReply(success=True)

    def RecordAuditEvent(self, request, _context):
        print("audit", request.channel, request.message, flush=True)
        return kerbside_pb2.StatusReply(success=True)

    def ProxyControl(self, _request, context):
        while context.is_active():
            yield kerbside_pb2.ProxyControlEvent(heartbeat=kerbside_pb2.Heartbeat())
            time.sleep(2)


server = grpc.server(concurrent.futures.ThreadPoolExecutor(16))
kerbside_pb2_grpc.add_KerbsideProxyServicer_to_server(Control(), server)
server.add_insecure_port(f"unix:{socket}")
server.start()
server.wait_for_termination()
