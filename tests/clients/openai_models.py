"""OpenAI's own Python client, unmodified, asks the gateway which models it may use; one line a check.

usage: openai_models.py BASE_URL KEY MODEL...
"""

import sys

import openai


def main(base_url, key, *expected):
    client = openai.OpenAI(base_url=base_url, api_key=key, timeout=60, max_retries=0)
    listed = list(client.models.list())
    assert [model.id for model in listed] == list(expected), listed
    assert all(model.object == "model" and model.created == 0 and model.owned_by for model in listed), listed
    print("ok list", flush=True)
    assert client.models.retrieve(expected[0]) == listed[0]
    print("ok retrieve", flush=True)
    try:
        client.models.retrieve("none-of-them")
        raise AssertionError("a model that is not there was found")
    except openai.NotFoundError as error:
        assert error.code == "model_not_found" and "none-of-them" in str(error), error
    print("ok not found", flush=True)
    try:
        client.with_options(api_key="somebody").models.list()
        raise AssertionError("a stranger was told")
    except openai.AuthenticationError:
        print("ok stranger", flush=True)


main(*sys.argv[1:])
