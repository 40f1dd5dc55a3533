"""What this server has to withstand, one sentence each, and which tests show it.

A test is named by a part of its id as pytest tells it; ``test_facts.py`` compares the
list with the whole suite. Section 0 is what changed the design, 2 the web stack, 3 the
fetching of URLs, 4 decoding, 6 the file server, W the faults that need a hook.
"""

from __future__ import annotations

FACTS = {
    # What changed the design
    "0-1": (
        "The WSGI server's time-out ends no request: a watchdog of our own does.",
        ["test_hang_is_noticed_told_and_survived"],
    ),
    "0-2": (
        "The WSGI server queues without bound: refusals are the application's.",
        ["test_burst_gets_only_200_and_429", "test_callers_can_be_bounded"],
    ),
    "0-3": (
        "Half-sent bodies hold threads: they are shut off, and health is answered.",
        ["0-3-/process", "0-3-/v1", "0-3-drip", "test_nginx.py"],
    ),
    "0-4": (
        "A client's leaving is seen at its socket, and stops the run.",
        [
            "test_jobs.py::test_client_that_leaves_stops",
            "test_client_that_leaves_through_nginx",
            "test_a_client_that_leaves_stops_its_stream",
        ],
    ),
    "0-5": (
        "A form that was cut off is a 400, also in chunks.",
        ["0-5-cut-", "0-5-chunked", "0-5-nothing", "file_server", "0-5-between-chunks"],
    ),
    "0-6": ("A redirect's own body is not read.", ["0-6-redirect-of-100-mb"]),
    "0-7": (
        "Which addresses are special is a list of our own, not the library's.",
        ["test_0_7_the_deny_list", "0-7-168.63", "0-7-5f00"],
    ),
    "0-8": (
        "16-bit grey is scaled, alpha lies over white.",
        ["0-8-i16", "0-8-alpha"],
    ),
    "0-9": (
        "Formats are on a list; bombs are refused whatever they raise.",
        ["0-9-format-eps", "0-9-bomb-100-mp", "0-9-bomb-iccp", "0-9-bomb-ztxt"],
    ),
    "0-10": (
        "NaN in the latents never becomes a black picture.",
        ["test_nan_twice_is_an_error", "test_nan_once_is_made_again"],
    ),
    "0-11": (
        "Tokens of any bytes are compared, and never a 500.",
        ["test_odd_keys_are_wrong_and_nothing_worse", "0-11-not-ascii"],
    ),
    "0-12": (
        "Failures that would come again say so to clients that retry.",
        [
            "test_failures_of_the_run_say_whether_to_try_again",
            "test_faults_have_their_status",
        ],
    ),
    # The web stack
    "2-limits": (
        "Bodies, parts, prompts, steps, depth and numbers have limits.",
        [
            "2-form-too-large",
            "2-urlencoded-too-large",
            "2-json-too-large",
            "2-form-too-many-parts",
            "2-prompt-of-32001",
            "2-form-201-steps",
            "2-json-deep",
            "2-json-1e999",
            "2-json-5000-digits",
            "test_an_absurd_length_is_413",
        ],
    ),
    "2-disk": ("A full disk is nothing to a body that comes in.", ["2-disk-file"]),
    "2-errors": (
        "Every error is JSON in the dialect of its API.",
        [
            "test_wrong_addresses_and_methods_answer_in_their_form",
            "test_too_large_body_is_refused_in_json",
        ],
    ),
    "2-http": (
        "HTTP that is none is refused before the application.",
        ["test_broken_http_is_refused_by_the_server_itself[length-and-chunks]"],
    ),
    "2-ids": ("A request id is taken over only when harmless.", ["2-id-"]),
    "2-proxy": (
        "Exactly the trusted hops count; forged Host and forwarding do nothing.",
        [
            "2-hops-0",
            "2-hops-1",
            "2-hops-2",
            "test_forged_hosts_do_nothing",
            "test_forged_forwarding_headers_do_nothing",
        ],
    ),
    "2-headers": ("Every answer carries its seals.", ["test_every_answer_is_sealed"]),
    "2-logs": (
        "Logs are one JSON object a line, without prompts, tokens or queries.",
        [
            "test_a_picture_is_one_line_that_tells_its_story",
            "test_no_caller_can_forge_a_line",
            "test_no_token_key_prompt_or_query_is_ever_logged",
            "test_nothing_of_all_this_leaked",
        ],
    ),
    "2-start": (
        "A wrong setting stops the start with its name and value, secrets masked.",
        [
            "test_a_wrong_value_is_one_line_with_its_name",
            "test_gunicorn_stops_with_one_clear_line",
            "test_serve_starts_neither_and_says_why",
        ],
    ),
    # Fetching URLs
    "3-syntax": (
        "Only plain http and https URLs of a sane length are looked at.",
        ["test_3_impossible_urls_are_refused", "test_3_hosts_that_no_url_has"],
    ),
    "3-spellings": (
        "No spelling of a special address is dialled, through either API.",
        [
            "test_3_every_spelling_of_loopback",
            "3-http-2130706433",
            "test_no_spelling_of_a_special_address_is_dialled",
        ],
    ),
    "3-mixed": (
        "One special address among a name's answers refuses the name.",
        ["test_3_mixed_answers_are_refused"],
    ),
    "3-pinned": (
        "The checked address is the one dialled; the name stays in Host and TLS.",
        [
            "test_an_allowed_name_is_resolved_once",
            "test_tls_names_and_verifies_the_host",
        ],
    ),
    "3-environment": (
        "Proxies and netrc of the environment play no part.",
        ["test_the_request_is_what_a_server_expects"],
    ),
    "3-opening": (
        "Private networks open by setting, and only those named.",
        ["test_allowed_networks_open_only_themselves", "test_allow_private_opens_all"],
    ),
    "3-own": (
        "Of the own file server only pictures are exempt.",
        ["test_own_origin_opens_only_its_pictures", "test_own_origin_is_exact"],
    ),
    "3-deny-list": (
        "Every network of the list is refused.",
        ["test_0_7_every_special_network_is_refused"],
    ),
    "3-redirects": (
        "At most three redirects, each checked anew.",
        ["test_three_redirects_are_followed", "test_3_each_redirect_is_checked"],
    ),
    "3-token": (
        "The token goes to the first origin only, and is plain ASCII.",
        [
            "test_3_the_token_goes_to_no_other_origin",
            "test_3_a_token_of_other_characters_is_refused",
        ],
    ),
    "3-encoding": ("Encoded content is refused.", ["3-gzip-bomb", "3-brotli"]),
    "3-size": (
        "Bytes are counted, whatever the header says.",
        ["3-length-over-limit", "3-chunked-over-limit", "test_3_a_huge_body_is_not"],
    ),
    "3-time": (
        "The total time is bounded, not each read's.",
        ["test_3_a_drip_ends", "test_3_a_slow_resolver", "test_3_endless_answers_end"],
    ),
    "3-short": (
        "A body shorter than announced is a failure.",
        ["3-short-body", "3-short-chunk"],
    ),
    "3-places": (
        "Fetches have places of their own and hold none of the model's.",
        ["test_one_caller_fetches_four", "test_a_fetch_holds_a_place"],
    ),
    "3-message": (
        "Every failure has the same words; the log has neither token nor query.",
        ["test_every_other_answer_fails_alike", "test_logs_hold_neither_token"],
    ),
    # Decoding
    "4-formats": (
        "What is on the list decodes, first frame only.",
        [
            "test_4_every_format_of_the_allow_list_decodes",
            "test_4_frames_the_first_of_an_animation",
        ],
    ),
    "4-limits": (
        "Sides and pixels are checked; nothing large is allocated by the server.",
        [
            "4-side-png",
            "4-pixels-jpeg",
            "4-pixels-avif",
            "test_hostile_files_cost_this_process_nothing",
            "test_pictures_in_use_take_no_more_than_they_may",
            "test_4_pixels_at_the_limit_are_decoded",
        ],
    ),
    "4-truncated": (
        "Truncated and lying files are refused.",
        ["4-truncated-png", "4-lying-jpeg"],
    ),
    "4-polyglot": (
        "Files that are two things are read as the picture that they are.",
        ["test_4_pictures_that_are_something_else_as_well_are_read"],
    ),
    "4-exif": (
        "EXIF turns the picture; corrupt EXIF is refused, not obeyed.",
        ["test_4_exif_turns_the_picture", "4-exif-corrupt-jpeg"],
    ),
    "4-colours": (
        "ICC profiles, CMYK, palettes and keys come out right.",
        [
            "test_4_icc_profile_is_applied",
            "4-cmyk-jpeg",
            "4-palette-index",
            "4-key-rgb",
        ],
    ),
    "4-size": (
        "A picture of any size is fitted to what the model draws.",
        ["test_odd_input_sizes_are_fitted", "test_sizes_are_fitted_within_every_limit"],
    ),
    "4-places": (
        "Decoding happens in few processes, which may die.",
        [
            "test_a_child_that_dies_is_replaced",
            "test_a_child_that_dies_at_work_costs_its_own_picture_only",
        ],
    ),
    "4-output": (
        "Nothing of the input's metadata reaches the output.",
        ["test_no_metadata_reaches_the_output"],
    ),
    "4-anything": (
        "Any bytes are a picture or a refusal.",
        ["test_any_damage_is_a_picture_or_a_refusal", "test_fuzz.py"],
    ),
    "4-pillow": (
        "The decoder is new enough to know its own holes.",
        ["test_the_decoder_is_new_enough"],
    ),
    # The file server
    "6-id": (
        "A name is checked before the disk is touched.",
        ["6-id-traversal", "6-id-nul", "6-id-part", "6-id-5-kb"],
    ),
    "6-plain": (
        "Links, pipes, sockets and folders are never served.",
        ["6-symlink", "6-fifo", "6-hardlink", "6-directory"],
    ),
    "6-write": (
        "A file is there whole or not at all.",
        ["6-kill9-uploads", "6-write-errors", "W17"],
    ),
    "6-full": (
        "A full disk is 507, old files are served, room helps at once.",
        ["6-enospc", "6-efbig-storing", "6-efbig-spooling"],
    ),
    "6-quota": (
        "Total size and free space are kept.",
        ["6-quota", "6-quota-races", "6-min-free"],
    ),
    "6-latest": (
        "The latest is the newest upload: viewing, ties, races, restarts.",
        [
            "6-latest-viewing",
            "6-latest-ties",
            "6-latest-races",
            "6-latest-restart",
            "6-latest-mark-lost",
            "6-latest-processes",
        ],
    ),
    "6-type": (
        "The bytes say the type: pictures are stored, the rest is 415.",
        ["6-sniffed", "6-415-html", "6-415-svg", "6-attachment-html"],
    ),
    "6-caching": (
        "Pictures are immutable, with ETag, ranges and HEAD.",
        ["6-immutable", "6-etag", "6-304", "6-range", "6-head", "6-headers"],
    ),
    "6-tokens": (
        "Missing is 401, wrong is 403, the default warns, uploads can need one.",
        ["6-token", "6-default-token", "6-upload-token"],
    ),
    "6-time": ("The time is Japan's, of the upload.", ["6-jst"]),
    "6-urls": (
        "URLs come from settings or a checked Host.",
        ["6-public-url", "6-trusted-hosts"],
    ),
    "6-ttl": ("What is old goes, the latest never.", ["6-ttl", "6-ttl-off"]),
    # Faults that need a hook
    "W1": ("Out of memory once: made again.", ["test_out_of_memory_once_is_survived"]),
    "W2": (
        "Out of memory always: 507, not to be retried; the next works.",
        ["test_out_of_memory_always_is_507", "test_faults_have_their_status"],
    ),
    "W3": (
        "A lost device: told, and a new process.",
        ["test_lost_device_restarts_the_worker", "test_a_lost_device_is_told"],
    ),
    "W4": ("NaN: no black picture.", ["test_nan_twice_is_an_error_and_never_a_black"]),
    "W5": (
        "A hang: 504 and a new process.",
        ["test_hang_is_noticed_told_and_survived"],
    ),
    "W6": (
        "A failed load: alive, not ready, with the reason.",
        ["test_failed_load_leaves_the_process_alive"],
    ),
    "W7": (
        "A client that left: its run stops.",
        ["test_jobs.py::test_client_that_leaves_stops_its_run_within_a_step"],
    ),
    "W8": (
        "A queued client that left: it never runs.",
        ["test_queued_job_of_a_client_that_left_never_runs"],
    ),
    "W9": (
        "A file server away, slow or mad: the picture comes all the same.",
        ["W9-away", "W9-silent", "W9-500", "W9-html", "test_both_apis_then_deliver"],
    ),
    "W10": ("A name that changes its address: nobody is dialled.", ["W10-"]),
    "W11": (
        "A pickle for a LoRA: refused, never loaded.",
        ["test_wrong_files_are_refused_and_leave_nothing_behind"],
    ),
    "W12": (
        "A LoRA that fails leaves no adapter.",
        [
            "test_wrong_files_are_refused_and_leave_nothing_behind",
            "test_a_then_b_then_none_leaves_no_trace",
        ],
    ),
    "W13": (
        "A hundred failures release everything.",
        ["test_hundred_failures_release_everything"],
    ),
    "W14": ("Idempotency keys: replayed, 422, 409.", ["W14-/process", "W14-/v1"]),
    "W15": ("The clock jumps: the latest stays.", ["W15"]),
    "W16": ("16-bit brightness is kept, alpha over white.", ["W16-", "alpha-W16"]),
    "W17": ("A kill between write and rename: no file.", ["W17"]),
    "W18": ("A read-only folder: serves, not ready.", ["W18"]),
    "W19": ("An upload while the cleaner runs.", ["W19"]),
    "W20": (
        "Mixed load: memory and descriptors stay flat.",
        ["test_soak.py::test_half_a_minute_of_mixed_load"],
    ),
}
