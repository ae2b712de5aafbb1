"""Messages as bytes and back, exactly: a small header and raw buffers. No pickle, no eval."""

from celerypipe.codec.codec import CODEC_VERSION as CODEC_VERSION
from celerypipe.codec.codec import READABLE as READABLE
from celerypipe.codec.codec import Apart as Apart
from celerypipe.codec.codec import Content as Content
from celerypipe.codec.codec import decode as decode
from celerypipe.codec.codec import decode_head as decode_head
from celerypipe.codec.codec import decode_payload as decode_payload
from celerypipe.codec.codec import decode_value as decode_value
from celerypipe.codec.codec import encode as encode
from celerypipe.codec.codec import encode_apart as encode_apart
from celerypipe.codec.codec import encode_joined as encode_joined
from celerypipe.codec.codec import encode_value as encode_value
from celerypipe.codec.codec import files_in as files_in
from celerypipe.codec.elsewhere import Elsewhere as Elsewhere
from celerypipe.codec.writer import Segment as Segment
