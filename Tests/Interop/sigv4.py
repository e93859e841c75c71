"""Signs each request of a file of JSON lines with botocore and prints its Authorization header."""

import datetime
import json
import sys

import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

for line in open(sys.argv[1], encoding="utf-8"):
    case = json.loads(line)
    time = datetime.datetime.fromtimestamp(case["seconds"], datetime.timezone.utc)
    botocore.auth.get_current_datetime = lambda time=time: time
    request = AWSRequest(
        method=case["method"], url=case["url"], data=bytes.fromhex(case["body"])
    )
    for name, value in case["headers"]:
        request.headers[name] = value
    credentials = Credentials(case["access"], case["secret"], case.get("token"))
    botocore.auth.SigV4Auth(credentials, "kinesis", case["region"]).add_auth(request)
    print(request.headers["Authorization"])
