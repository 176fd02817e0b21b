"""Clients of the edge that the test has started. Its address is the first argument."""

import sys

from openai import AsyncOpenAI, OpenAI

BASE_URL = sys.argv[1] + "/v1"

# No retries: they would hide what went wrong. The tests have a time limit of their own.
OPTIONS = {"base_url": BASE_URL, "max_retries": 0, "timeout": 60}


def client(api_key="sk-test"):
    return OpenAI(api_key=api_key, **OPTIONS)


def async_client(api_key="sk-test"):
    return AsyncOpenAI(api_key=api_key, **OPTIONS)


def messages(prompt):
    return [{"role": "user", "content": prompt}]
