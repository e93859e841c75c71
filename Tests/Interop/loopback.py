"""Little HTTP servers on loopback, a thread for each connection."""

import http.server
import threading


class Listener(http.server.ThreadingHTTPServer):
    """Serves from its making until `stop`, by a handler class."""

    daemon_threads = True
    # The agent opens all its connections at once.
    request_queue_size = 128

    def __init__(self, handler, port=0):
        super().__init__(("127.0.0.1", port), handler)
        self.port = self.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def handle_error(self, *_):
        pass  # the agent may go away at any time

    def stop(self):
        self.shutdown()
        self.server_close()
        self._thread.join(10)
