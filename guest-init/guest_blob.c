#include "guest-init/guest_blob.h"
