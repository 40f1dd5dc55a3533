"""The hostile requests of tests/http, to an API whose pictures a cluster makes."""

from __future__ import annotations

import pytest

# Each uses the fixture below; those with a server of their own are not among them.
from tests.http.test_hostile import (  # noqa: F401
    test_a_chunked_form_works_and_is_limited_too,
    test_a_cut_off_chunked_form_is_400,
    test_a_cut_off_form_is_400,
    test_a_cut_off_json_body_is_400,
    test_a_drip_is_shut_off_though_it_never_stops,
    test_a_forged_request_id_is_replaced,
    test_a_hostile_body_is_refused,
    test_a_refused_body_is_read_all_the_same,
    test_a_slow_but_honest_body_is_taken,
    test_an_absurd_length_is_413_without_waiting_for_it,
    test_an_odd_body_is_taken_as_it_says,
    test_broken_http_is_refused_by_the_server_itself,
    test_every_answer_is_sealed,
    test_forged_hosts_do_nothing,
    test_half_sent_bodies_hold_nobody_up_and_are_shut_off,
    test_head_and_options_are_answered,
    test_nothing_of_all_this_leaked,
    test_wrong_addresses_and_methods_answer_in_their_form,
)
from tests.support.servers import run_api

pytest.importorskip("ray", reason="Ray is not installed: 'make test-ray' does it")


@pytest.fixture(scope="module")
def server(ray_settings):
    """With the same small limits."""
    limits = {"FLUX_MAX_UPLOAD_MB": 1, "FLUX_BODY_TIMEOUT": 1, "FLUX_MAX_QUEUE": 4}
    with run_api(**limits, **ray_settings) as running:
        yield running.wait_ready(180)
