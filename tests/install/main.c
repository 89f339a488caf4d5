/* Uses the installed library: a node is made and destroyed. */
#include <lanline.h>

#include <stdio.h>
#include <string.h>

int main(void)
{
    lanline_node_options options;
    lanline_node node;
    lanline_guid id = 0;

    lanline_node_options_init(&options);
    options.app = "install-check";
    options.app_len = (uint32_t)strlen(options.app);
    options.bind = "127.0.0.1:0";
    options.bind_len = (uint32_t)strlen(options.bind);
    if (lanline_abi_version() != LANLINE_ABI_VERSION || lanline_node_create(&options, &node) != LANLINE_OK)
        return 1;
    if (lanline_node_guid(node, &id) != LANLINE_OK || !id || lanline_node_destroy(node, 1000) != LANLINE_OK)
        return 1;
    printf("   lanline %s works\n", lanline_version());
    return 0;
}
