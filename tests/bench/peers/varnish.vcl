# Varnish as a cache of POSTs. The storage (malloc) and the threads are parameters of the command:
# see tests/bench/peers/contender.rs.
vcl 4.1;

import std;
import bodyaccess;

backend default {
    .host = "@HOST@";
    .port = "@PORT@";
    # As long as the slowest provider takes.
    .first_byte_timeout = 600s;
    .between_bytes_timeout = 600s;
}

sub vcl_recv {
    # The body has to be in memory to be hashed, and to be sent to the provider.
    if (!std.cache_req_body(64KB)) {
        return (pass);
    }
    # The built-in rules would pass a POST and whatever has credentials.
    return (hash);
}

sub vcl_hash {
    hash_data(req.url);
    bodyaccess.hash_req_body();
    return (lookup);
}

sub vcl_backend_fetch {
    # Varnish asks for what it caches by GET otherwise.
    set bereq.method = "POST";
    return (fetch);
}

sub vcl_backend_response {
    set beresp.ttl = 1h;
    # A client reads an answer while it arrives.
    set beresp.do_stream = true;
    return (deliver);
}
