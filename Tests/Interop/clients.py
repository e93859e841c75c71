"""boto3 as it comes, for what stands for Kinesis: nothing is tried twice, nothing checked before it is sent."""

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError


def client_for(url, **options):
    config = Config(retries={"total_max_attempts": 1}, parameter_validation=False)
    return boto3.client(
        "kinesis",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=config,
        **options,
    )


def error_of(call, **arguments):
    """The error code and message with which a call is refused."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def code_of(call, **arguments):
    return error_of(call, **arguments)[0]
