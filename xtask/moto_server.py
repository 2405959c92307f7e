"""An S3 protocol server that checks signatures, with one user and one bucket; and a door that tells an object's tag."""

import http.server
import json
import os
import threading

# Requests that make the user are let in without a signature; all others are checked.
os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = "4"

import boto3  # noqa: E402
from moto.server import ThreadedMotoServer  # noqa: E402

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
url = f"http://{host}:{port}"


def client(name, key="none", secret="none"):
    return boto3.client(
        name, endpoint_url=url, region_name="us-east-1", aws_access_key_id=key, aws_secret_access_key=secret
    )


iam = client("iam")
iam.create_user(UserName="longshore")
policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
iam.put_user_policy(UserName="longshore", PolicyName="s3", PolicyDocument=json.dumps(policy))
made = iam.create_access_key(UserName="longshore")["AccessKey"]
key, secret = made["AccessKeyId"], made["SecretAccessKey"]
s3 = client("s3", key, secret)
s3.create_bucket(Bucket="backups")


class Door(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        tag = s3.head_object(Bucket="backups", Key=self.path.removeprefix("/pieces/"))["ETag"]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(tag.encode())

    def log_message(self, *_):
        pass


door = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Door)
print(json.dumps({"url": url, "key": key, "secret": secret, "helper": f"http://127.0.0.1:{door.server_port}"}), flush=True)
threading.Thread(target=door.serve_forever).start()
