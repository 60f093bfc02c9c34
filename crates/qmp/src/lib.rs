//! QMP and guest-agent client; knows nothing of flipside.
